//! `clinch demo`: a public key infrastructure, a responder, a backend and the terminator in one go.

pub mod authority;
