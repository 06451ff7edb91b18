//! The filters as configured, and as shown.

use crate::db::{DbError, Run, sync as rows};
use crate::index::IntakeFilter;
use crate::service::{Core, ServiceError};
use crate::wire::admin::{SyncFilter, SyncFiltersQuery};

/// The filters of `patch-sync.*`, with the kernels of machines where those are asked for.
pub async fn configured(core: &Core, run: &impl Run) -> Result<IntakeFilter, ServiceError> {
    let sync = &core.config.patch_sync;
    let minimum = &sync.minimum_kernel_version;
    let only = ours(core, run, sync.only_our_kernels).await?;
    Ok(IntakeFilter {
        architectures: sync.architectures.clone(),
        flavours: sync.flavours.clone(),
        minimum_kernel: (!minimum.is_empty()).then(|| minimum.parse()).transpose()?,
        kernel_prefixes: sync.kernel_prefixes.clone(),
        only,
    })
}

async fn ours(
    core: &Core,
    run: &impl Run,
    asked: bool,
) -> Result<Option<std::collections::BTreeSet<crate::domain::KernelVersion>>, DbError> {
    if !asked {
        return Ok(None);
    }
    let grace = core.config.patch_sync.our_kernels_grace;
    rows::our_kernels(run, Some(grace)).await.map(Some)
}

/// The filters of a question, where it says nothing those of the configuration.
pub(super) async fn proposed(
    core: &Core,
    run: &impl Run,
    query: &SyncFiltersQuery,
) -> Result<IntakeFilter, ServiceError> {
    let mut filter = configured(core, run).await?;
    let list = |text: &str| -> Vec<String> {
        let items = text.split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty() && *item != "all");
        items.map(ToOwned::to_owned).collect()
    };
    if let Some(text) = &query.architectures {
        let parsed: Result<_, _> = list(text).iter().map(|a| a.parse()).collect();
        filter.architectures = parsed?;
    }
    if let Some(text) = &query.flavors {
        filter.flavours = list(text);
    }
    if let Some(text) = &query.minimum_kernel_version {
        let given = text.trim();
        filter.minimum_kernel = match given {
            "" | "all" => None,
            given => Some(given.parse()?),
        };
    }
    if let Some(text) = &query.kernel_prefixes {
        filter.kernel_prefixes = list(text);
    }
    if let Some(asked) = query.only_our_kernels {
        filter.only = ours(core, run, asked).await?;
    }
    Ok(filter)
}

/// The filters as shown.
pub(super) fn wire(filter: &IntakeFilter) -> SyncFilter {
    SyncFilter {
        architectures: filter
            .architectures
            .iter()
            .map(ToString::to_string)
            .collect(),
        flavors: filter.flavours.clone(),
        minimum_kernel_version: filter
            .minimum_kernel
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        kernel_prefixes: filter.kernel_prefixes.clone(),
        our_kernels: filter.only.as_ref().map(|only| only.len() as u64),
    }
}

/// Refuses a change of tiers or promotions while they are upstream's.
pub fn locked_tiers(core: &Core) -> Result<(), ServiceError> {
    let sync = &core.config.patch_sync;
    if sync.enabled && sync.sync_tiers {
        return Err(ServiceError::Conflict(format!(
            "tiers and promotions are taken over from {} (patch-sync.sync-tiers) and would be overwritten at the next run; \
             change them there, or set patch-sync.sync-tiers to false",
            sync.upstream_url
        )));
    }
    Ok(())
}
