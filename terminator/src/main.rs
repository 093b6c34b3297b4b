//! The `clinch` binary: hands the command line to [`clinch::cli`] and nothing else.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    clinch::cli::main()
}
