//! The egress process: the only part that talks to responders. Bytes out, bytes in; no keys, no verdicts.
