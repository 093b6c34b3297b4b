//! The image in its quick form: kernel and initrd alone, from the binaries that are there, lightly
//! packed and with QEMU's own card only. It is not signed and has no disks.

use std::path::Path;
use std::process::Command;

use super::{IMAGE, scripts};
use crate::process::binary;

/// Puts it together and makes it the image of this process. The error is why this machine cannot: the
/// kernel is not to be had.
pub fn build() -> Result<(), String> {
    // Beside the profile's folder that the binary is in: target/image-quick.
    let target = binary().ancestors().nth(2).expect("target/PROFILE/clinch");
    let folder = target.join("image-quick");
    let init = binary().with_file_name("clinch-init");
    let built = Command::new(scripts().join("build.sh"))
        .args([Path::new("--direct"), &folder])
        .env("CLINCH_BIN", binary())
        .env("CLINCH_INIT_BIN", init)
        .env("CLINCH_INITRD_LEVEL", "1")
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("a shell is there");
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    match built.status.code() {
        Some(0) => {
            IMAGE.get_or_init(|| folder);
            Ok(())
        }
        Some(NO_KERNEL) => Err(said.trim().to_owned()),
        _ => panic!("the quick image cannot be built: {said}"),
    }
}

/// The exit code of `kernel.sh` where the archive does not have the locked kernel.
const NO_KERNEL: i32 = 3;
