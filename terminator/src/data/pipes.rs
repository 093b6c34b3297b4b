//! Pipes of one worker, lent to connections whose bytes need not pass through user space, and taken back
//! empty.
//!
//! A bounded number is out at any time, since the kernel bounds the memory that the pipes of a user may
//! hold, and a slow client keeps its pipe full. Who gets none copies.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::sys::pipe::Pipe;

/// The pipes a worker keeps.
#[derive(Default)]
pub(super) struct Pipes {
    free: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
}

/// A pipe on loan: given back when dropped.
pub(super) struct Lent {
    pipes: Rc<Pipes>,
    pipe: Option<Pipe>,
}

impl Pipes {
    /// A pipe, if there is one left.
    pub(super) fn lend(self: &Rc<Self>) -> Option<Lent> {
        if self.lent.get() == MOST {
            return None;
        }
        let free = self.free.borrow_mut().pop();
        let pipe = free.or_else(|| Pipe::new(SIZE).ok())?;
        self.lent.set(self.lent.get() + 1);
        Some(Lent {
            pipes: Rc::clone(self),
            pipe: Some(pipe),
        })
    }
}

impl std::ops::Deref for Lent {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        self.pipe.as_ref().expect("held until dropped")
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("held until dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pipes.lent.set(self.pipes.lent.get() - 1);
        // What one client did not take must never reach another.
        self.pipes
            .free
            .borrow_mut()
            .extend(self.pipe.take().filter(|pipe| pipe.held() == 0));
    }
}

/// What a pipe is filled with at once, in full pages.
pub(super) const SIZE: usize = 256 * 1024;

/// Pipes of a worker: two descriptors each.
const MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pipe_that_holds_bytes_is_not_lent_again() {
        let pipes = Rc::new(Pipes::default());
        let (mut backend, from) = UnixStream::pair().expect("descriptors are left");
        backend.write_all(b"for one client").expect("open");
        let mut first = pipes.lend().expect("the first");
        first.fill(&from, 100).expect("there is something");
        drop(first);
        assert_eq!(pipes.free.borrow().len(), 0);
        drop(pipes.lend());
        assert_eq!(pipes.free.borrow().len(), 1);
    }

    #[test]
    fn so_many_pipes_are_out_and_no_more() {
        let pipes = Rc::new(Pipes::default());
        let out: Vec<_> = std::iter::from_fn(|| pipes.lend()).collect();
        assert_eq!(out.len(), MOST);
        drop(out);
        assert!(pipes.lend().is_some());
    }
}
