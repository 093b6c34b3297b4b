//! A worker thread: its ring, its runtime, its end.

use std::io;

use super::WorkerSetup;

/// A running worker.
pub struct Worker {
    thread: std::thread::JoinHandle<()>,
}

/// Starts a worker thread and returns once its cryptography is warm and it accepts connections.
pub fn start(setup: WorkerSetup) -> io::Result<Worker> {
    let _ = setup;
    todo!()
}

impl Worker {
    /// Tells the worker to stop accepting, to let connections finish for at most
    /// [`crate::limits::Timeouts::drain`], and to end.
    pub fn drain(&self) {
        todo!()
    }

    /// Whether the thread has ended, by drain or by fault.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread to end; an error says that it panicked.
    pub fn join(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}
