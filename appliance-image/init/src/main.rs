//! PID 1 of the Clinch appliance. It takes no arguments and is of no use on another machine; the
//! operator's tool is `clinch-appliance`.
#![forbid(unsafe_code)]

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "clinch-init is the first process of the Clinch appliance; operators use clinch-appliance"
        );
        std::process::exit(2);
    }
    clinch_init::boot::run();
}
