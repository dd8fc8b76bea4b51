//! Files that commands write when all is done: whole or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::StartError;

/// A file beside its place, which it takes when it is whole; it vanishes when it never is.
#[derive(Debug)]
pub(super) struct Prepared {
    file: NamedTempFile,
    path: PathBuf,
}

impl Prepared {
    /// For `path`. Minutes later would be too late to hear that it cannot be written.
    pub(super) fn new(path: &Path) -> Result<Self, StartError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
        let file = file.map_err(|error| cannot_write(path, &error.to_string()))?;
        Ok(Self { file, path: path.into() })
    }

    /// It holds `text`, if there is any, and takes its place.
    pub(super) fn fill(mut self, text: Result<String, String>) -> Result<(), StartError> {
        let filled = text.and_then(|text| {
            self.file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
            readable(&self.file).map_err(|error| error.to_string())?;
            self.file.persist(&self.path).map_err(|error| error.to_string())
        });
        filled.map(drop).map_err(|reason| cannot_write(&self.path, &reason))
    }
}

fn cannot_write(path: &Path, reason: &str) -> StartError {
    StartError::Other(format!("cannot write {}: {reason}", path.display()))
}

/// Lets others read `file`, as any file that is not temporary.
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_whole_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures");
        Prepared::new(&path).unwrap().fill(Ok("one\n".into())).unwrap();
        let failed = Prepared::new(&path).unwrap().fill(Err("no ink".into()));
        assert!(failed.unwrap_err().to_string().contains("figures: no ink"));
        drop(Prepared::new(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        let nowhere = Prepared::new(&folder.path().join("no/such")).unwrap_err();
        assert!(nowhere.to_string().contains("cannot write"), "{nowhere}");
    }
}
