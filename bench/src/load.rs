//! Closed-loop load: a fixed number of connections at once, a fixed number in all.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::client::{Client, Connection};

/// What each connection does after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Nothing: handshake and close.
    Handshake,
    /// One small request to the backend, its answer, close.
    Request,
    /// The same after as many bytes to and fro as a handshake has: for the relay without TLS that expects them.
    FlightsAndRequest,
    /// One answer of so many bytes, close.
    Bulk(u64),
}

/// A load to put on a server.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// How to speak TLS; `None` connects in the clear.
    pub client: Option<Client>,
    /// What each connection does.
    pub pattern: Pattern,
    /// Connections in all.
    pub count: u32,
    /// Connections at once.
    pub concurrency: u32,
}

/// What the client saw.
pub struct Outcome {
    /// From the first connect to the last close.
    pub wall: Duration,
    /// From connect to the end of the handshake, µs. In a closed loop this shows queueing in the
    /// server, not what a visitor would see; it serves to compare, not to promise.
    pub handshake_us: Histogram<u64>,
    /// Bytes of response bodies.
    pub bytes: u64,
}

impl Load {
    /// Runs it to the end on the current `LocalSet`. The first connection that fails ends the load
    /// with its error: a figure over failed handshakes would mean nothing.
    pub async fn run(&self) -> Result<Outcome> {
        let started = Instant::now();
        let remaining = Rc::new(Cell::new(self.count));
        let lanes: Vec<_> = (0..self.concurrency.min(self.count))
            .map(|_| tokio::task::spawn_local(lane(self.clone(), Rc::clone(&remaining))))
            .collect();
        let mut outcome = Outcome {
            wall: Duration::ZERO,
            handshake_us: Histogram::new(3)?,
            bytes: 0,
        };
        for lane in lanes {
            let (handshake_us, bytes) = lane.await??;
            outcome.handshake_us.add(handshake_us)?;
            outcome.bytes += bytes;
        }
        outcome.wall = started.elapsed();
        Ok(outcome)
    }
}

async fn lane(load: Load, remaining: Rc<Cell<u32>>) -> Result<(Histogram<u64>, u64)> {
    let mut handshake_us = Histogram::new(3)?;
    let mut bytes = 0;
    let bulk = matches!(load.pattern, Pattern::Bulk(_));
    let mut buffer = vec![0; if bulk { 256 * 1024 } else { 16 * 1024 }];
    while remaining.get() > 0 {
        remaining.set(remaining.get() - 1);
        let one = connection(&load, &mut buffer);
        let (took, read) = tokio::time::timeout(DEADLINE, one)
            .await
            .context("a connection took over 30 s")??;
        handshake_us.record(took.as_micros() as u64)?;
        bytes += read;
    }
    Ok((handshake_us, bytes))
}

async fn connection(load: &Load, buffer: &mut [u8]) -> Result<(Duration, u64)> {
    let started = Instant::now();
    let mut connection = Connection::open(load.address, load.client.as_ref(), buffer).await?;
    let took = started.elapsed();
    let bytes = match load.pattern {
        Pattern::Handshake => 0,
        Pattern::Request => connection.request("/", buffer).await?,
        Pattern::FlightsAndRequest => {
            connection.flights(buffer).await?;
            connection.request("/", buffer).await?
        }
        Pattern::Bulk(bytes) => {
            connection
                .request(&format!("/bytes/{bytes}"), buffer)
                .await?
        }
    };
    connection.close(buffer).await?;
    Ok((took, bytes))
}

/// No connection of any scenario takes longer on any machine that is worth measuring.
const DEADLINE: Duration = Duration::from_secs(30);
