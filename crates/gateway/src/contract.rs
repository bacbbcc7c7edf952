//! `proto`: hands out the proto file that this program was built from, for those who generate code from it.

use std::{fs, path::Path};

use anyhow::Context;

/// Where the file is below a folder of proto files, and what is in it.
const NAME: &str = "dcams/storage/v1/storage.proto";
const TEXT: &str = include_str!("../../../proto/dcams/storage/v1/storage.proto");

/// Writes the file below `folder`, or prints it.
pub(crate) fn write(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return say!("{}", TEXT.trim_end());
    };
    let path = folder.join(NAME);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(&path, TEXT))
        .with_context(|| path.display().to_string())?;
    say!("{}", path.display())
}
