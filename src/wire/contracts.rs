//! What is said to the contracts service of Ubuntu Pro and what it answers (public: the Ubuntu Pro client and the documents of
//! Canonical's on-premises server). Answers are read tolerantly: keys that are not known are skipped, `null` is as if absent.

use serde::{Deserialize, Serialize};

/// The name under which a server of this kind asks for itself (public).
pub const ON_PREM: &str = "livepatch-onprem";

/// Body of `POST /v1/context/machines/token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineTokenRequest {
    /// Under Debian's name.
    pub architecture: String,
    /// Always `container`, as documented.
    pub host_type: String,
    /// Always [`ON_PREM`], as documented.
    pub machine_id: String,
    /// The system this server runs on.
    pub os: Os,
}

/// An operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// E.g. `Ubuntu`.
    pub distribution: String,
    /// As `uname -r` prints it.
    pub kernel: String,
    /// E.g. `24.04`.
    pub release: String,
    /// E.g. `noble`.
    pub series: String,
    /// Always `Linux`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Answer to `POST /v1/context/machines/token`. No `Debug`: it holds a token.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineTokenAnswer {
    /// The machine token of the contract.
    pub machine_token: String,
}

/// Answer to `GET /v1/resources/{resource}/context/machines/{machine-id}`. No `Debug`: it holds a token.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceAnswer {
    /// The token for the resource.
    pub resource_token: Option<String>,
    /// What the contract says of the resource.
    pub entitlement: Option<Entitlement>,
}

/// What a contract says of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Entitlement {
    /// Whether the machine may have it at all.
    pub entitled: Option<bool>,
    /// Within which limits.
    pub affordances: Option<ContractAffordances>,
}

/// Limits of an entitlement; what is absent or empty is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContractAffordances {
    /// Architectures, under Debian's or uname's names.
    pub architectures: Option<Vec<String>>,
    /// Code names of Ubuntu's series.
    pub series: Option<Vec<String>>,
    /// Flavours of kernels.
    pub kernel_flavors: Option<Vec<String>>,
    /// E.g. `4.4`.
    pub min_kernel_version: Option<String>,
    /// The tier.
    pub tier: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_tolerantly() {
        let text = r#"{"resourceToken": "m", "series": null, "entitlement": {"type": "livepatch", "entitled": true,
            "directives": {"remoteServer": "https://livepatch.example", "caCerts": ""}, "obligations": {"enableByDefault": true},
            "affordances": {"architectures": ["amd64", "x86_64"], "series": null, "tier": "stable",
                "kernelFlavors": ["generic"], "minKernelVersion": "4.4", "new": 1}}}"#;
        let answer: ResourceAnswer = serde_json::from_str(text).unwrap();
        let entitlement = answer.entitlement.unwrap();
        assert_eq!(
            (answer.resource_token.as_deref(), entitlement.entitled),
            (Some("m"), Some(true))
        );
        let affordances = entitlement.affordances.unwrap();
        assert_eq!(affordances.tier.as_deref(), Some("stable"));
        assert_eq!(affordances.series, None);
        assert_eq!(affordances.min_kernel_version.as_deref(), Some("4.4"));
        assert_eq!(affordances.kernel_flavors.unwrap(), ["generic"]);
        let empty: ResourceAnswer = serde_json::from_str("{}").unwrap();
        assert!(empty.resource_token.is_none() && empty.entitlement.is_none());
    }

    #[test]
    fn the_request_is_as_documented() {
        let request = MachineTokenRequest {
            architecture: "amd64".to_owned(),
            host_type: "container".to_owned(),
            machine_id: ON_PREM.to_owned(),
            os: Os {
                distribution: "Ubuntu".to_owned(),
                kernel: "6.8.0-31-generic".to_owned(),
                release: "24.04".to_owned(),
                series: "noble".to_owned(),
                kind: "Linux".to_owned(),
            },
        };
        assert_eq!(
            serde_json::to_value(request).unwrap(),
            serde_json::json!({"architecture": "amd64", "hostType": "container", "machineId": "livepatch-onprem",
                "os": {"distribution": "Ubuntu", "kernel": "6.8.0-31-generic", "release": "24.04", "series": "noble", "type": "Linux"}})
        );
    }
}
