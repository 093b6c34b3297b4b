//! The appliance, booted. `make image-test` runs these one after the other; they need the image.
//!
//! To add one: a function here or in a module of its own, which makes a [`Place`], starts a
//! [`Machine`] and waits for what it says. `appliance-image/test.sh NAME` runs those whose names have
//! that part.
//!
//! [`Place`]: clinch_tests::appliance::Place
//! [`Machine`]: clinch_tests::appliance::Machine

mod boots;
mod configurations;
mod cuts;
mod hangs;
mod hardware;
mod ktls;
mod making;
mod networks;
mod pins;
mod seals;
mod updates;
