//! Where a site's connections belong: its home worker and the ones after it. Pure.
//!
//! Rendezvous hashing: each worker draws a number from the site's name, and the highest wins. So a
//! site keeps its home when others come and go, and with one worker more only the sites that move
//! to it move. The caller says how many workers there are.

use clinch_steering_abi::{CHOICES, Placement};

use crate::config::Confinement;

/// The placement of a site among `workers` workers (at least one).
///
/// Workers that the confinement names and that do not exist are left out; where none is left, the
/// site is placed as if it were not confined.
pub fn place(site: &str, confinement: &Confinement, workers: usize) -> Placement {
    let exists = |worker: &u16| usize::from(*worker) < workers;
    let mut candidates: Vec<u16> = confinement.workers.iter().copied().filter(exists).collect();
    let confined = !candidates.is_empty();
    if !confined {
        candidates = (0..u16::try_from(workers).unwrap_or(u16::MAX)).collect();
    }
    let name = clinch_hello::key_of(site);
    candidates.sort_by_key(|&worker| std::cmp::Reverse(draw(name, worker)));
    let share = usize::from(confinement.share.max(1));
    // One more than the share, so that there is a next choice; a confined site has no other cores.
    let wanted = if confined {
        candidates.len()
    } else {
        share + 1
    };
    let count = wanted.min(candidates.len()).min(CHOICES);
    let mut placement = Placement {
        workers: [0; CHOICES],
        count: count as u16,
        share: share.min(count) as u16,
    };
    for (slot, worker) in placement.workers.iter_mut().zip(candidates) {
        *slot = worker;
    }
    placement
}

/// The worker that should serve a connection which `worker` has, or `None` where it belongs here:
/// any of those that the connections of the site are spread among.
pub fn owner(placement: &Placement, worker: usize, turn: usize) -> Option<usize> {
    let share = usize::from(placement.share).clamp(1, CHOICES);
    let among = &placement.workers[..share];
    if among.iter().any(|&at| usize::from(at) == worker) {
        return None;
    }
    Some(usize::from(among[turn % share]))
}

/// A worker's number for a name: the finaliser of SplitMix64.
fn draw(name: u64, worker: u16) -> u64 {
    let mut z = name ^ (u64::from(worker) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> Confinement {
        Confinement::default()
    }

    fn home(site: usize, workers: usize) -> u16 {
        place(&format!("site-{site}.test"), &free(), workers).workers[0]
    }

    #[test]
    fn sites_spread_evenly_and_few_move_when_a_worker_is_added() {
        let mut held = [0; 4];
        (0..4000).for_each(|site| held[usize::from(home(site, 4))] += 1);
        assert!(held.iter().all(|n| (850..1150).contains(n)), "{held:?}");
        let moved: Vec<usize> = (0..4000).filter(|&s| home(s, 4) != home(s, 5)).collect();
        assert!(
            moved.iter().all(|&site| home(site, 5) == 4),
            "to the new one only"
        );
        assert!((650..950).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn a_confined_site_never_leaves_its_cores() {
        let confinement = Confinement {
            workers: vec![3, 1, 900],
            share: 2,
        };
        let placement = place("a.test", &confinement, 4);
        let mut named = placement.workers[..usize::from(placement.count)].to_vec();
        named.sort_unstable();
        assert_eq!((named, placement.share), (vec![1, 3], 2));
        assert_eq!(owner(&placement, 3, 0), None);
        assert!(matches!(owner(&placement, 0, 7), Some(1 | 3)));
    }

    #[test]
    fn cores_that_do_not_exist_confine_nothing() {
        let confinement = Confinement {
            workers: vec![7],
            share: 1,
        };
        assert_eq!(
            place("a.test", &confinement, 2),
            place("a.test", &free(), 2)
        );
        assert_eq!(place("a.test", &free(), 1).count, 1);
    }
}
