//! Writes the seeds of the fuzz targets that are missing in `tests/fuzz/seeds/`. Those that are
//! there stay as they are, among them what fuzzing found.

use clinch_tests::fuzz::TARGETS;

fn main() -> std::io::Result<()> {
    for target in TARGETS {
        let folder = target.folder();
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in (target.seeds)() {
            let path = folder.join(name);
            if !path.exists() {
                std::fs::write(&path, bytes)?;
                println!("{}", path.display());
            }
        }
    }
    Ok(())
}
