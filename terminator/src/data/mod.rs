//! The data plane: worker, accept, handshake, relay.
