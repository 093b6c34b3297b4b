//! Very many sites, each with a certificate, a key and a staple of its own, made in memory on all cores:
//! 1,000,000 of them as files would take two million files and as many seconds of a disk.
//!
//! What is made is what control makes of files and answers: a parsed leaf, its chain, its key, and a staple
//! that the verifier took. The files' way is measured by `certificates`.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clinch::certificate::{Identity, Leaf};
use clinch::cli::demo::authority::{Authority, HashAlgorithm, LeafSpec, OcspAnswer};
use clinch::ocsp::{Policy, VerifiedStaple, verify};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// One of the crowd.
pub struct Member {
    /// Name of site and certificate.
    pub name: String,
    /// Chain and key.
    pub identity: Identity,
    /// Its staple.
    pub staple: Arc<VerifiedStaple>,
}

/// The name of a member.
pub fn name(index: u32) -> String {
    format!("s{index}.crowd.test")
}

/// Makes the members `0..count`, in order.
pub fn make(count: u32) -> Result<Vec<Member>> {
    let now = SystemTime::now();
    let authority = Authority::new(now)?;
    let threads = std::thread::available_parallelism()?.get() as u32;
    let share = count.div_ceil(threads).max(1);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .step_by(share as usize)
            .map(|from| {
                let authority = &authority;
                let to = count.min(from + share);
                scope.spawn(move || {
                    (from..to)
                        .map(|index| member(authority, index, now))
                        .collect()
                })
            })
            .collect();
        let ended = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended
            .map(|part| {
                part.map_err(|_| anyhow::anyhow!("a thread that makes certificates panicked"))?
            })
            .collect::<Result<Vec<Vec<Member>>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

fn member(authority: &Authority, index: u32, now: SystemTime) -> Result<Member> {
    let name = name(index);
    let issued = authority.issue(&LeafSpec {
        names: vec![name.clone()],
        ocsp_urls: vec!["http://ocsp.crowd.test".to_owned()],
        ..LeafSpec::default()
    })?;
    let answer = OcspAnswer::good(now);
    let response = authority.respond_about(&answer, &issued.serial, HashAlgorithm::Sha1)?;
    let policy = Policy::default();
    let staple = verify(&response, &issued.leaf, &issued.issuer, &policy, now)
        .context("the crowd's own staple")?;
    Ok(Member {
        name,
        identity: Identity {
            leaf: Leaf::parse(&issued.leaf)?,
            chain: vec![issued.leaf, issued.issuer],
            key: PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?,
        },
        staple: Arc::new(staple),
    })
}
