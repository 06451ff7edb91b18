//! Bundles whose content is not what their name or their manifest says. Tests only.

use super::samples::{NAME, bundle, elf, examined, file, module};
use super::*;
use proptest::prelude::*;

#[test]
fn a_module_must_fit_its_architecture_and_kernel() {
    let magic = "vermagic=5.15.0-107-generic SMP\0";
    for (arch, wide, little, machine) in [
        ("amd64", true, true, 62),
        ("arm64", true, true, 183),
        ("s390x", true, false, 22),
        ("ppc64el", true, true, 21),
        ("riscv64", true, true, 243),
        ("armhf", false, true, 40),
        ("i386", false, true, 3),
    ] {
        let bytes = bundle(&[file("a-b.ko", &elf(wide, little, machine, magic))]);
        for named in [
            "amd64", "arm64", "s390x", "ppc64el", "riscv64", "armhf", "i386",
        ] {
            let name = NAME.replace("amd64", named).parse().unwrap();
            let found = examine(&name, bytes.as_slice(), &Limits::default(), None);
            match found {
                Ok(examined) => {
                    assert_eq!(named, arch);
                    assert_eq!(examined.module_name, "a_b");
                }
                Err(ReadError::Disagrees { what, .. }) => {
                    assert!(what == "architecture" && named != arch);
                }
                Err(other) => panic!("{arch} as {named}: {other}"),
            }
        }
    }
    let own = "name=lkp_Ubuntu_5_15_0_107_117_generic_107\0";
    for (modinfo, good) in [
        (own.to_owned(), true),
        (own.replace("117", "118"), false),
        (own.replace("_107\0", "_106\0"), false),
        (format!("{magic}name=anything\0"), true),
        (format!("{magic}{}", own.replace("_107\0", "_106\0")), false),
        (format!("{own}vermagic=5.15.0-108-generic SMP\0"), false),
        (format!("{own}vermagic=\0"), false),
    ] {
        let bytes = bundle(&[file("x.ko", &elf(true, true, 62, &modinfo))]);
        match examined(&bytes) {
            Ok(_) => assert!(good, "{modinfo:?} was accepted"),
            Err(ReadError::Disagrees { .. }) => assert!(!good, "{modinfo:?} was refused"),
            Err(other) => panic!("{modinfo:?}: {other}"),
        }
    }
}

#[test]
fn what_is_no_module_is_refused() {
    let good = module();
    let cases: [(Vec<u8>, ModuleError); 7] = [
        (b"hello".to_vec(), ModuleError::NotElf),
        (good[..15].to_vec(), ModuleError::NotElf),
        (
            [&good[..16], &[2, 0], &good[18..]].concat(),
            ModuleError::NotRelocatable,
        ),
        (elf(true, true, 62, "depends=\0"), ModuleError::Nameless),
        (
            elf(true, true, 62, "vermagic=a\0vermagic=b\0"),
            ModuleError::Modinfo("vermagic stands there twice".to_owned()),
        ),
        (
            elf(true, true, 62, "nonsense\0"),
            ModuleError::Modinfo("a value without a key".to_owned()),
        ),
        (
            good[..good.len() - 60].to_vec(),
            ModuleError::Structure("a header lies outside the file"),
        ),
    ];
    for (content, expected) in cases {
        match examined(&bundle(&[file("x.ko", &content)])) {
            Err(ReadError::Module { why, .. }) => assert_eq!(why, expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        examined(&bundle(&[file("readme", b"x")])),
        Err(ReadError::NoModule { files: 1 })
    ));
    assert!(matches!(
        examined(&bundle(&[])),
        Err(ReadError::NoModule { files: 0 })
    ));
}

#[test]
fn a_manifest_of_ours_must_tell_the_truth() {
    let name: BundleName = NAME.parse().unwrap();
    let right = Manifest::new(&name, "x.ko", &module()).to_json().unwrap();
    let right = String::from_utf8(right).unwrap();
    let with = |json: &str| {
        examined(&bundle(&[
            file("metadata.json", json.as_bytes()),
            file("x.ko", &module()),
        ]))
    };
    assert!(with(&right).unwrap().other_files.is_empty());
    for (from, to) in [
        ("117-generic", "118-generic"),
        ("\"107.1\"", "\"107.2\""),
        ("amd64", "arm64"),
    ] {
        let found = with(&right.replace(from, to));
        assert!(
            matches!(found, Err(ReadError::Disagrees { .. })),
            "{to}: {found:?}"
        );
    }
    for (from, to) in [
        ("x.ko", "y.ko"),
        ("\"module-sha256\": \"", "\"module-sha256\": \"0"),
        ("\"kernel\"", "\"k\""),
    ] {
        let found = with(&right.replace(from, to));
        assert!(
            matches!(found, Err(ReadError::Manifest(_))),
            "{to}: {found:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_to_a_module_panics(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
        let mut module = module();
        let length = module.len();
        for (at, byte) in changes {
            module[usize::from(at) % length] = byte;
        }
        let _ = ModuleInfo::read(&module);
    }
}
