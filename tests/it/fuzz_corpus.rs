//! The corpus of the fuzz targets, replayed: what once made trouble, and an example of everything that is read.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_input_of_the_corpus_is_read_and_nothing_breaks() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let folder = corpus.join(name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut seen = 0;
        for file in files {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "{}", path.display());
            // Cut short and changed, it must be survived as well.
            for at in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
                target(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 0x20;
                target(&changed);
            }
            seen += 1;
        }
        assert!(seen > 1, "{name}: only {seen} inputs");
    }
}

#[test]
fn every_target_is_built_and_has_a_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names: BTreeSet<String> = targets::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let list = |folder: &str| -> BTreeSet<String> {
        std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|file| {
                let name = file.unwrap().file_name().into_string().unwrap();
                name.trim_end_matches(".rs").to_owned()
            })
            .collect()
    };
    assert_eq!(list("corpus"), names);
    assert_eq!(list("fuzz_targets"), names);
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
