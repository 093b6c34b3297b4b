//! The addresses of the configuration become sockets: bound here or passed by the service manager,
//! one per worker, opened when the caller says so.

use std::net::TcpListener;

use crate::config::{Config, Listener};
use crate::observability::ListenerView;
use crate::steering::{Landing, Steering, SteeringError};
use crate::sys::listening::{Address, ListenError, Origin};

/// An address of a listener that is ours but not open yet.
pub(super) struct Reserved {
    listener: usize,
    name: String,
    address: Address,
    /// Where the kernel is to steer.
    landing: Option<Landing>,
}

/// One worker's listening sockets, each with the index of its listener.
pub(super) type OfWorker = Vec<(usize, TcpListener)>;

/// The service manager passed a socket that the configuration does not know.
#[derive(Debug, thiserror::Error)]
#[error(
    "the service manager passed a socket for {0}, which no [listen] table has; add the address to the configuration, or take it out of the .socket unit"
)]
struct Unwanted(std::net::SocketAddr);

impl Reserved {
    /// How it is shown to observers.
    pub(super) fn view(&self) -> ListenerView {
        ListenerView {
            name: self.name.clone(),
            address: self.address.local,
            passed: self.address.origin == Origin::Passed,
        }
    }
}

/// Takes over the passed sockets, matched by their local address, and binds the other addresses.
pub(super) fn reserve(
    config: &Config,
    workers: usize,
    mut passed: Vec<Address>,
) -> anyhow::Result<Vec<Reserved>> {
    let addresses = config
        .listeners
        .iter()
        .enumerate()
        .flat_map(|(index, l)| l.addresses.iter().map(move |address| (index, l, *address)));
    let reserved = addresses
        .map(|(listener, Listener { name, .. }, wanted)| {
            let address = match passed.iter().position(|p| p.local == wanted) {
                Some(found) => {
                    let mut address = passed.swap_remove(found);
                    address.share_among(workers)?;
                    address
                }
                None => Address::bind(wanted, workers)?,
            };
            Ok(Reserved {
                listener,
                name: name.clone(),
                address,
                landing: None,
            })
        })
        .collect::<Result<Vec<_>, ListenError>>()?;
    match passed.first() {
        Some(unwanted) => Err(Unwanted(unwanted.local).into()),
        None => Ok(reserved),
    }
}

/// Binds a landing listener beside the workers' sockets of every address that was bound here.
pub(super) fn reserve_landings(reserved: &mut [Reserved]) -> Result<(), SteeringError> {
    let bound = |reserved: &&mut Reserved| reserved.address.origin == Origin::Bound;
    for reserved in reserved.iter_mut().filter(bound) {
        reserved.landing = Some(Landing::bind(reserved.address.local)?);
    }
    Ok(())
}

/// Opens the accept queues and deals the sockets out to the workers; the landing listeners, which
/// the second value has, go to one of them. An address that cannot be steered is served all the
/// same.
pub(super) fn open(
    reserved: Vec<Reserved>,
    config: &Config,
    workers: usize,
    steering: &mut Option<Steering>,
) -> Result<(Vec<OfWorker>, OfWorker), ListenError> {
    let mut landings = Vec::new();
    let mut hands: Vec<OfWorker> = (0..workers).map(|_| Vec::new()).collect();
    for Reserved {
        listener,
        name,
        address,
        landing,
    } in reserved
    {
        let (local, origin) = (address.local, address.origin);
        let sockets = address.listen(config.listeners[listener].backlog)?;
        if let (Some(steering), Some(landing)) = (steering.as_mut(), landing) {
            match steering.open(local, listener, &sockets, landing) {
                Ok(landing) => landings.push((listener, landing)),
                Err(error) => {
                    tracing::warn!(listener = name, address = %local, %error, "the kernel does not steer this address");
                }
            }
        }
        for (hand, socket) in hands.iter_mut().zip(sockets) {
            hand.push((listener, socket));
        }
        tracing::info!(listener = name, address = %local, passed = origin == Origin::Passed, "listening");
    }
    Ok((hands, landings))
}
