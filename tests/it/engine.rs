//! The engine: scenarios a person can read, and properties that must hold for any catalog.

use jiff::civil::{Date, date};
use livepatch_onprem::domain::{
    Architecture, KernelSupport, MachineId, PatchVersion, Scope, Sha256,
};
use livepatch_onprem::rollout::support::{DEFAULT_TABLE, SupportTable};
use livepatch_onprem::rollout::*;
use proptest::prelude::*;

const KERNEL: &str = "5.15.0-107.117-generic";
const TODAY: Date = date(2026, 1, 15);

/// A catalog in the making: `107.1@stable!` is patch 107.1, promoted to stable, blocked; `~` held, `x` damaged.
fn catalog(patches: &[&str]) -> Catalog {
    let mut rows = CatalogRows {
        tiers: ["edge", "beta", "candidate", "stable"]
            .iter()
            .zip(1..)
            .map(|(name, id)| Tier {
                id,
                name: name.parse().unwrap(),
            })
            .collect(),
        support: SupportTable::parse(DEFAULT_TABLE).unwrap().rows().to_vec(),
        ..CatalogRows::default()
    };
    for (text, id) in patches.iter().zip(1..) {
        let plain = text.trim_end_matches(['!', '~', 'x']);
        let (version, tier) = plain.split_once('@').unwrap_or((plain, ""));
        let version: PatchVersion = version.parse().unwrap();
        rows.patches.push(PatchRow { id, version });
        rows.payloads.push(PayloadRow {
            id: i64::from(id),
            patch_id: id,
            kernel: KERNEL.parse().unwrap(),
            architecture: Architecture::Amd64,
            filename: format!("livepatch-{KERNEL}-{version}-amd64.tar.bz2"),
            sha256: Sha256([id as u8; 32]),
            size: 1000,
            fixes: Vec::new().into(),
            obsolete: false,
            damaged: text.contains('x'),
        });
        if let Some(tier) = rows.tiers.iter().find(|t| t.name.as_str() == tier) {
            rows.promotions.push(PromotionRow {
                patch_id: id,
                tier_id: tier.id,
                scope: Scope::default(),
            });
        }
        for (mark, kind) in [('!', BlockKind::Block), ('~', BlockKind::Hold)] {
            if text.contains(mark) {
                rows.blocks.push(BlockRow {
                    patch_id: id,
                    kind,
                    scope: Scope::default(),
                });
            }
        }
    }
    Catalog::build(rows)
}

fn facts<'a>(catalog: &Catalog, tier: &str, applied: &str) -> Facts<'a> {
    Facts {
        tier: catalog.tier_named(&tier.parse().unwrap()).unwrap(),
        kernel: KERNEL,
        architecture: Some(Architecture::Amd64),
        applied: applied.parse().ok(),
        build_date: None,
        machine: MachineId([1; 16]),
        now: jiff::Timestamp::UNIX_EPOCH,
        today: TODAY,
    }
}

/// One line: outcome, offered version, and the codes of all reasons.
fn story(catalog: &Catalog, facts: &Facts<'_>) -> String {
    let none = Rollouts::default();
    let decision = decide(catalog, &none, facts).unwrap();
    let skips: Vec<String> = decision
        .skips()
        .map(|skip| format!("{} {}", skip.version, skip.code.as_str()))
        .collect();
    let offered = decision
        .payload
        .map(|p| p.version.to_string())
        .unwrap_or_default();
    format!(
        "{} {offered} [{}] {}",
        decision.outcome.as_str(),
        skips.join(", "),
        decision.code.as_str()
    )
}

#[test]
fn who_is_offered_what() {
    let c = |patches: &[&str], tier: &str, applied: &str| {
        let catalog = catalog(patches);
        story(&catalog, &facts(&catalog, tier, applied))
    };
    // The highest version that has reached the tier.
    assert_eq!(
        c(&["106.1@stable", "107.1@beta"], "beta", ""),
        "offer 107.1 [] offered"
    );
    assert_eq!(
        c(&["106.1@stable", "107.1@beta"], "edge", ""),
        "offer 107.1 [] offered"
    );
    assert_eq!(
        c(&["106.1@stable", "107.1@beta"], "stable", ""),
        "offer 106.1 [107.1 not-in-tier] offered"
    );
    // Nothing changes for who has it.
    assert_eq!(
        c(&["106.1@stable", "107.1@beta"], "beta", "107.1"),
        "up-to-date  [] up-to-date"
    );
    // A machine that was moved to a later tier keeps what it has.
    assert_eq!(
        c(&["106.1@stable", "107.1@beta"], "stable", "107.1"),
        "keeps-higher  [] keeps-higher"
    );
    // A version that the server does not know binds too.
    assert_eq!(
        c(&["106.1@stable"], "stable", "108.1"),
        "keeps-higher  [] keeps-higher"
    );
    // A block withdraws: the next lower one is offered, also downwards.
    assert_eq!(
        c(&["106.1@stable", "107.1@stable!"], "stable", ""),
        "offer 106.1 [107.1 blocked] offered"
    );
    assert_eq!(
        c(&["106.1@stable", "107.1@stable!"], "stable", "107.1"),
        "offer 106.1 [107.1 blocked] offered"
    );
    assert_eq!(
        c(&["106.1@stable", "107.1@stable!"], "stable", "106.1"),
        "up-to-date  [107.1 blocked] up-to-date"
    );
    assert_eq!(
        c(&["107.1@stable!"], "stable", "107.1"),
        "nothing-to-apply  [107.1 blocked] withdrawn-no-fallback"
    );
    assert_eq!(
        c(&["107.1@stable!"], "stable", ""),
        "nothing-to-apply  [107.1 blocked] none-available"
    );
    // A hold stops new offers and takes nothing back.
    assert_eq!(
        c(&["106.1@stable", "107.1@stable~"], "stable", ""),
        "offer 106.1 [107.1 held] offered"
    );
    assert_eq!(
        c(&["106.1@stable", "107.1@stable~"], "stable", "107.1"),
        "keeps-higher  [] keeps-higher"
    );
    // What does not verify is not offered.
    assert_eq!(
        c(&["106.1@stable", "107.1@stablex"], "stable", ""),
        "offer 106.1 [107.1 damaged] offered"
    );
    assert_eq!(
        c(&["107.1"], "edge", ""),
        "nothing-to-apply  [107.1 not-in-tier] none-available"
    );
}

#[test]
fn kernels_without_a_payload() {
    let catalog = catalog(&["107.1@stable"]);
    let ask = |kernel, arch, built: Option<Date>| {
        let facts = Facts {
            kernel,
            architecture: arch,
            build_date: built,
            ..facts(&catalog, "stable", "")
        };
        story(&catalog, &facts)
    };
    let amd64 = Some(Architecture::Amd64);
    assert_eq!(
        ask("5.15.0-106.116-generic", amd64, None),
        "nothing-to-apply  [] no-payload"
    );
    assert_eq!(
        ask("5.15.0-106.116-generic", amd64, Some(date(2024, 2, 7))),
        "kernel-upgrade-required  [] kernel-upgrade-required"
    );
    assert_eq!(
        ask("6.5.0-1.2-generic", amd64, None),
        "unsupported  [] kernel-unsupported"
    );
    assert_eq!(
        ask(KERNEL, Some(Architecture::Arm64), None),
        "unsupported  [] kernel-unsupported"
    );
    assert_eq!(ask(KERNEL, None, None), "unknown  [] kernel-unknown");
    assert_eq!(ask("Linux", amd64, None), "unknown  [] kernel-unknown");
    assert_eq!(ask("", amd64, None), "unknown  [] kernel-unknown");
}

#[test]
fn reasons_are_sentences() {
    let catalog = catalog(&[
        "105.1@stable",
        "106.1@beta",
        "107.1@stable!",
        "108.1@stable~",
    ]);
    let none = Rollouts::default();
    let decision = decide(&catalog, &none, &facts(&catalog, "stable", "107.1")).unwrap();
    let mut lines: Vec<String> = decision
        .skips()
        .map(|skip| skip.text(decision.tier))
        .collect();
    lines.push(decision.text());
    assert_eq!(
        lines,
        [
            "108.1 is not offered: it is held",
            "107.1 is not offered: it is blocked",
            "106.1 is not offered: it has reached tier beta, not yet stable",
            "105.1 is offered: 107.1, which the machine runs, is blocked, and this is the highest version left in tier stable",
        ]
    );
    assert_eq!(decision.support.verdict, KernelSupport::Supported);
}

#[test]
fn scopes_narrow_promotions_and_blocks() {
    let kernels = ["5.15.0-107.117-generic", "5.15.0-107.117-aws"];
    let mut rows = CatalogRows {
        tiers: vec![
            Tier {
                id: 1,
                name: "edge".parse().unwrap(),
            },
            Tier {
                id: 2,
                name: "stable".parse().unwrap(),
            },
        ],
        patches: vec![PatchRow {
            id: 1,
            version: "107.1".parse().unwrap(),
        }],
        ..CatalogRows::default()
    };
    for (kernel, id) in kernels.iter().zip(1..) {
        rows.payloads.push(PayloadRow {
            id,
            patch_id: 1,
            kernel: kernel.parse().unwrap(),
            architecture: Architecture::Amd64,
            filename: format!("livepatch-{kernel}-107.1-amd64.tar.bz2"),
            sha256: Sha256([1; 32]),
            size: 1,
            fixes: Vec::new().into(),
            obsolete: false,
            damaged: false,
        });
    }
    let aws = Scope::parse(None, Some("aws"), None).unwrap();
    rows.promotions.push(PromotionRow {
        patch_id: 1,
        tier_id: 1,
        scope: Scope::default(),
    });
    rows.promotions.push(PromotionRow {
        patch_id: 1,
        tier_id: 2,
        scope: aws.clone(),
    });
    let reach = |rows: &CatalogRows| -> Vec<(String, Option<u16>, Standing)> {
        let catalog = Catalog::build(rows.clone());
        catalog
            .payloads()
            .iter()
            .map(|p| (p.kernel.flavour().to_owned(), p.reach, p.standing))
            .collect()
    };
    assert_eq!(
        reach(&rows),
        [
            ("aws".into(), Some(1), Standing::Free),
            ("generic".into(), Some(0), Standing::Free)
        ]
    );
    rows.blocks.push(BlockRow {
        patch_id: 1,
        kind: BlockKind::Hold,
        scope: Scope::default(),
    });
    rows.blocks.push(BlockRow {
        patch_id: 1,
        kind: BlockKind::Block,
        scope: aws,
    });
    assert_eq!(
        reach(&rows),
        [
            ("aws".into(), Some(1), Standing::Blocked),
            ("generic".into(), Some(0), Standing::Held)
        ]
    );
    let catalog = Catalog::build(rows);
    assert!(
        catalog
            .by_filename("livepatch-5.15.0-107.117-aws-107.1-amd64.tar.bz2")
            .is_some()
    );
    assert!(
        catalog
            .by_filename("livepatch-5.15.0-107.117-aws-107.2-amd64.tar.bz2")
            .is_none()
    );
}

proptest! {
    #[test]
    fn what_is_offered_may_be_offered(
        patches in prop::collection::btree_map(
            1u32..30,
            (prop::sample::select(vec!["", "@edge", "@beta", "@candidate", "@stable"]), prop::sample::select(vec!["", "!", "~", "x", "!~"])),
            0..12,
        ),
        tier in prop::sample::select(vec!["edge", "beta", "candidate", "stable"]),
        applied in prop::option::of(1u32..32),
    ) {
        let texts: Vec<String> = patches.iter().map(|(v, (tier, mark))| format!("{v}.1{tier}{mark}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let catalog = catalog(&texts);
        let applied = applied.map(|v| format!("{v}.1")).unwrap_or_default();
        let facts = facts(&catalog, tier, &applied);
        let none = Rollouts::default();
        let decision = decide(&catalog, &none, &facts).unwrap();
        let eligible = |p: &Payload| p.standing == Standing::Free && p.reach.is_some_and(|r| r >= facts.tier);
        let withdrawn = catalog.payloads().iter().any(|p| Some(p.version) == facts.applied && p.standing == Standing::Blocked);
        if let Some(offered) = decision.payload {
            prop_assert!(eligible(offered));
            prop_assert!(withdrawn || facts.applied.is_none_or(|have| offered.version > have));
            prop_assert!(catalog.payloads().iter().filter(|p| eligible(p)).all(|p| p.version <= offered.version));
        } else if withdrawn || facts.applied.is_none() {
            prop_assert!(!catalog.payloads().iter().any(eligible));
        } else {
            prop_assert!(!catalog.payloads().iter().any(|p| eligible(p) && Some(p.version) > facts.applied));
        }
        // Deciding again for a machine that took the offer is quiet: no flapping.
        if let Some(offered) = decision.payload {
            let after = Facts { applied: Some(offered.version), ..facts };
            prop_assert_eq!(decide(&catalog, &none, &after).unwrap().outcome, Outcome::UpToDate);
        }
    }
}
