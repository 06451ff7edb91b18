//! Canonical's keys, all of them, with the defaults its documentation gives, and what this version does with each.

use super::Kind::{
    Address, Bool, Choice, Connection, Duration, Float, Int, List, Path, Secret, Text, Url, Users,
};
use super::Status::{NotYet, Refused, Replaced, Used};
use super::{Answer, Feature};

static BLOCKLIST: Answer = Answer {
    group: "patch-blocklist.*",
    text: "a block takes effect on every replica at once, so no list is refreshed; use `livepatch-admin patch block`",
};
static CLOUD_DELAY: Answer = Answer {
    group: "cloud_delay.*",
    text: "delays by cloud belong to Canonical's hosted service; give machines a later tier to delay their patches",
};
static HOSTED: Answer = Answer {
    group: "server.is-hosted",
    text: "this server is always on premises; leave the key out",
};
static INFLUX: Answer = Answer {
    group: "influx.*",
    text: "machine reports are kept in PostgreSQL (machine-reports.database.enabled) and counted at /metrics",
};
static INGRESS: Answer = Answer {
    group: "ingress-interface",
    text: "it belongs to the Juju charm; put any reverse proxy or ingress before server.server-address",
};
static KPI: Answer = Answer {
    group: "kpi-reports.*",
    text: "key figures belong to Canonical's hosted service; read /metrics and `livepatch-admin report`",
};
static LEADER: Answer = Answer {
    group: "server.is-leader",
    text: "replicas elect the one that runs the background work through the database; leave the key out",
};
static PROFILER: Answer = Answer {
    group: "profiler.*",
    text: "it pushes profiles of the Go runtime, which this server does not have; read /metrics, or use `perf`",
};
static ROW_LIMIT: Answer = Answer {
    group: "machine-reports.database.cleanup-row-limit",
    text: "history is kept in one partition a day and a day that is too old is dropped whole, so no row limit is needed",
};
static SSO: Answer = Answer {
    group: "auth.sso.*",
    text: "Ubuntu SSO serves Canonical's hosted service; use auth.basic.users or `livepatch-admin admin add`",
};
static SWIFT: Answer = Answer {
    group: "patch-storage.swift-*",
    text: "Swift is reached through its S3 API: enable the s3api middleware on the Swift proxy, make a key pair with \
           `openstack ec2 credentials create`, then set patch-storage.type to s3, patch-storage.s3-endpoint to the \
           proxy, patch-storage.s3-bucket to the container, and patch-storage.s3-access-key and s3-secret-key to the pair",
};
static TIMESCALE: Answer = Answer {
    group: "timescale_db.*",
    text: "history is kept by day in the database of database.connection-string; set machine-reports.database.enabled",
};

static CVE_LOOKUP: Feature = Feature {
    switch: "cve-lookup.enabled",
    text: "CVEs fixed by a patch are not looked up",
};
static CVE_SYNC: Feature = Feature {
    switch: "cve-sync.enabled",
    text: "CVE data is not fetched",
};
static LSN_SYNC: Feature = Feature {
    switch: "lsn-sync.enabled",
    text: "security notices are not fetched",
};
static OTEL_METRICS: Feature = Feature {
    switch: "otel-metrics.enabled",
    text: "metrics are not pushed; scrape /metrics",
};

super::keys! { Canonical;
    "auth.basic.enabled" Bool, "false", Used, "Let the users of `auth.basic.users` log in.";
    "auth.basic.users" Users, "", Used, "Administrators as `name:bcrypt-hash` pairs separated by commas, as `htpasswd -nB` prints them.";
    "auth.oauth.allowed-email-ids" List, "", Used, "Addresses that may administer; not given: whoever has a role by auth.oauth.roles.";
    "auth.oauth.audience" Text, "", Used, "The audience a token must name.";
    "auth.oauth.enabled" Bool, "false", Used, "Accept bearer tokens of an identity provider (OpenID Connect) for administration.";
    "auth.oauth.issuer" Text, "", Used, "The issuer a token must name.";
    "auth.oauth.jwks.refresh-interval" Duration, "1h", Used, "How often the provider's keys are fetched.";
    "auth.oauth.jwks.refresh-unknown-kid" Bool, "true", Used, "Fetch the keys again when a token names an unknown one.";
    "auth.oauth.jwks.refresh-unknown-kid-limit" Duration, "10m", Used, "The least time between two such fetches.";
    "auth.oauth.jwks.refresh-unknown-kid-max-wait" Duration, "1m", Used, "How long a request waits for such a fetch.";
    "auth.oauth.jwks.url" Url, "", Used, "Where the provider's keys are.";
    "auth.oauth.proxy.enabled" Bool, "false", Used, "Use a proxy for the identity provider.";
    "auth.oauth.proxy.http" Url, "", Used, "The proxy for http URLs of the identity provider.";
    "auth.oauth.proxy.https" Url, "", Used, "The proxy for https URLs of the identity provider.";
    "auth.oauth.proxy.no-proxy" List, "", Used, "Hosts reached without the proxy for the identity provider.";
    "auth.oauth.sig-algs" List, "RS256", Used, "Signature algorithms that are accepted.";
    "auth.sso.enabled" Bool, "false", Replaced(&SSO), "Log in through Ubuntu SSO.";
    "auth.sso.public-key" Text, "", Replaced(&SSO), "Public key of the SSO service.";
    "auth.sso.teams" List, "", Replaced(&SSO), "Launchpad teams that may log in.";
    "auth.sso.url" Url, "", Replaced(&SSO), "Where the SSO service is.";
    "cloud_delay.default_delay_hours" Int, "0", Replaced(&CLOUD_DELAY), "Hours by which patches are delayed.";
    "cloud_delay.enabled" Bool, "false", Replaced(&CLOUD_DELAY), "Delay patches by cloud and region.";
    "contracts.ca" Path, "", Used, "PEM file of the authority that signed the contracts server's certificate.";
    "contracts.enabled" Bool, "", Used, "Check Ubuntu Pro tokens with the contracts service.";
    "contracts.password" Secret, "", Used, "Password for the contracts service.";
    "contracts.url" Url, "https://contracts.canonical.com", Used, "Where the contracts service is.";
    "contracts.user" Text, "", Used, "User name for the contracts service.";
    "cve-lookup.auth-required" Bool, "false", NotYet(&CVE_LOOKUP), "Ask for a token before answering which CVEs are fixed.";
    "cve-lookup.enabled" Bool, "false", NotYet(&CVE_LOOKUP), "Answer which CVEs a kernel and patch fix.";
    "cve-sync.enabled" Bool, "false", NotYet(&CVE_SYNC), "Fetch CVE data.";
    "cve-sync.interval" Duration, "1h", NotYet(&CVE_SYNC), "How often CVE data is fetched.";
    "cve-sync.proxy.enabled" Bool, "false", NotYet(&CVE_SYNC), "Use a proxy for CVE data.";
    "cve-sync.proxy.http" Url, "", NotYet(&CVE_SYNC), "The proxy for http URLs of CVE data.";
    "cve-sync.proxy.https" Url, "", NotYet(&CVE_SYNC), "The proxy for https URLs of CVE data.";
    "cve-sync.proxy.no-proxy" List, "", NotYet(&CVE_SYNC), "Hosts reached without the proxy for CVE data.";
    "cve-sync.source-url" Url, "", NotYet(&CVE_SYNC), "Where CVE data comes from.";
    "cve-sync.timeout" Duration, "5m", NotYet(&CVE_SYNC), "How long fetching CVE data may take.";
    "database.connection-lifetime-max" Duration, "10m", Used, "A connection to the database is renewed at this age.";
    "database.connection-pool-max" Int, "10", Used, "Connections to the database at most.";
    "database.connection-string" Connection, "", Used, "The PostgreSQL database: a URL or a `key=value` string. Required.";
    "database.work_mem" Int, "", Used, "PostgreSQL's `work_mem` for our connections, in MiB; not given: the database's own.";
    "influx.bucket" Text, "", Replaced(&INFLUX), "InfluxDB bucket.";
    "influx.enabled" Bool, "", Replaced(&INFLUX), "Write machine reports to InfluxDB.";
    "influx.organization" Text, "", Replaced(&INFLUX), "InfluxDB organisation.";
    "influx.ping_bucket" Text, "", Replaced(&INFLUX), "InfluxDB bucket for pings.";
    "influx.token" Secret, "", Replaced(&INFLUX), "InfluxDB token.";
    "influx.url" Url, "", Replaced(&INFLUX), "Where InfluxDB is.";
    "ingress-interface" Text, "legacy-nginx-route", Replaced(&INGRESS), "How the charm reaches its ingress.";
    "kpi-reports.enabled" Text, "", Replaced(&KPI), "Compute the hosted service's key figures.";
    "kpi-reports.interval" Duration, "5m", Replaced(&KPI), "How often they are computed.";
    "lsn-sync.enabled" Bool, "false", NotYet(&LSN_SYNC), "Fetch security notices.";
    "lsn-sync.interval" Duration, "1h", NotYet(&LSN_SYNC), "How often security notices are fetched.";
    "lsn-sync.proxy.enabled" Bool, "false", NotYet(&LSN_SYNC), "Use a proxy for security notices.";
    "lsn-sync.proxy.http" Url, "", NotYet(&LSN_SYNC), "The proxy for http URLs of security notices.";
    "lsn-sync.proxy.https" Url, "", NotYet(&LSN_SYNC), "The proxy for https URLs of security notices.";
    "lsn-sync.proxy.no-proxy" List, "", NotYet(&LSN_SYNC), "Hosts reached without the proxy for security notices.";
    "lsn-sync.source-url" Url, "", NotYet(&LSN_SYNC), "Where security notices come from.";
    "lsn-sync.timeout" Duration, "5m", NotYet(&LSN_SYNC), "How long fetching security notices may take.";
    "machine-reports.database.cleanup-interval" Duration, "6h", Used, "How often history that is too old is removed.";
    "machine-reports.database.cleanup-row-limit" Int, "1000", Replaced(&ROW_LIMIT), "Rows removed at once.";
    "machine-reports.database.enabled" Bool, "false", Used, "Keep the history of check-ins, not only the latest one of each machine.";
    "machine-reports.database.retention-days" Int, "10", Used, "Days of history that are kept.";
    "otel-metrics.enabled" Bool, "false", NotYet(&OTEL_METRICS), "Push metrics over OpenTelemetry.";
    "otel-metrics.export-interval" Duration, "60s", NotYet(&OTEL_METRICS), "How often they are pushed.";
    "otel-metrics.export-timeout" Duration, "30s", NotYet(&OTEL_METRICS), "How long a push may take.";
    "otel-metrics.service-name" Text, "livepatch-server", NotYet(&OTEL_METRICS), "The service name they carry.";
    "patch-blocklist.enabled" Bool, "false", Replaced(&BLOCKLIST), "Read the list of blocked patches from time to time.";
    "patch-blocklist.refresh-interval" Duration, "5m", Replaced(&BLOCKLIST), "How often it is read.";
    "patch-cache.cache-size" Int, "128", Used, "Payloads kept in memory at most.";
    "patch-cache.cache-ttl" Duration, "10m", Used, "How long a payload stays in memory.";
    "patch-cache.enabled" Bool, "true" canonical "false", Used, "Keep payloads in memory; bounded in bytes by `patch-cache.max-bytes`.";
    "patch-storage.filesystem-path" Path, "/var/lib/livepatch/patches", Used, "The folder of payloads, for type `filesystem`.";
    "patch-storage.postgres-connection-string" Connection, "", Used, "The database of payloads, for type `postgres`; not given: that of `database.connection-string`.";
    "patch-storage.s3-access-key" Secret, "", Used, "Access key of the bucket; not given: credentials of the instance or container.";
    "patch-storage.s3-bucket" Text, "", Used, "The bucket, for type `s3`.";
    "patch-storage.s3-endpoint" Text, "", Used, "The S3 server: host, host:port or URL; not given: AWS.";
    "patch-storage.s3-region" Text, "", Used, "The region; not given: `us-east-1`.";
    "patch-storage.s3-secret-key" Secret, "", Used, "Secret key of the bucket.";
    "patch-storage.s3-secure" Bool, "false", Used, "Use TLS where `patch-storage.s3-endpoint` gives no scheme.";
    "patch-storage.swift-api-key" Secret, "", Refused(&SWIFT), "Swift password.";
    "patch-storage.swift-auth-url" Url, "", Refused(&SWIFT), "Where Keystone is.";
    "patch-storage.swift-container" Text, "", Refused(&SWIFT), "Swift container.";
    "patch-storage.swift-domain" Text, "", Refused(&SWIFT), "Keystone domain.";
    "patch-storage.swift-region" Text, "", Refused(&SWIFT), "Swift region.";
    "patch-storage.swift-tenant" Text, "", Refused(&SWIFT), "Keystone project.";
    "patch-storage.swift-username" Text, "", Refused(&SWIFT), "Keystone user.";
    "patch-storage.type" Choice(&["filesystem", "s3", "postgres"]), "filesystem", Used, "Where payloads are kept.";
    "patch-sync.architectures" List, "", Used, "Architectures to fetch patches for; not given: all.";
    "patch-sync.enabled" Bool, "false", Used, "Fetch patches from another server.";
    "patch-sync.flavors" List, "generic,lowlatency,aws", Used, "Kernel flavours to fetch patches for.";
    "patch-sync.id" Text, "", Used, "The identity of this deployment in its reports.";
    "patch-sync.interval" Duration, "1h", Used, "How often patches are fetched.";
    "patch-sync.machine-count-strategy" Choice(&["unit", "bucket"]), "bucket", Used, "How the number of machines is reported.";
    "patch-sync.minimum-kernel-version" Text, "", Used, "The oldest kernel to fetch patches for.";
    "patch-sync.proxy.enabled" Bool, "false", Used, "Use a proxy for the upstream server.";
    "patch-sync.proxy.http" Url, "", Used, "The proxy for http URLs of the upstream server.";
    "patch-sync.proxy.https" Url, "", Used, "The proxy for https URLs of the upstream server.";
    "patch-sync.proxy.no-proxy" List, "", Used, "Hosts reached without the proxy for the upstream server.";
    "patch-sync.send-machine-reports" Bool, "false", Used, "Report machines to the upstream server.";
    "patch-sync.sync-tiers" Bool, "false", Used, "Take the upstream server's tiers over.";
    "patch-sync.token" Secret, "", Used, "Sync token of the upstream server.";
    "patch-sync.upstream-url" Url, "https://livepatch.canonical.com", Used, "Where the upstream server is.";
    "profiler.block_profile_rate" Int, "50000", Replaced(&PROFILER), "Rate of block profiles.";
    "profiler.enabled" Bool, "false", Replaced(&PROFILER), "Push profiles of the Go runtime.";
    "profiler.hostname" Text, "", Replaced(&PROFILER), "Host name in the profiles.";
    "profiler.mutex_profile_fraction" Int, "5", Replaced(&PROFILER), "Fraction of mutex events profiled.";
    "profiler.profile_allocations" Bool, "false", Replaced(&PROFILER), "Profile allocations.";
    "profiler.profile_blocks" Bool, "false", Replaced(&PROFILER), "Profile blocking.";
    "profiler.profile_goroutines" Bool, "false", Replaced(&PROFILER), "Profile goroutines.";
    "profiler.profile_inuse" Bool, "false", Replaced(&PROFILER), "Profile memory in use.";
    "profiler.profile_mutexes" Bool, "false", Replaced(&PROFILER), "Profile mutexes.";
    "profiler.sample_rate" Int, "100", Replaced(&PROFILER), "Samples per second.";
    "profiler.server_address" Text, "", Replaced(&PROFILER), "Where profiles are pushed.";
    "profiler.upload_rate" Int, "", Replaced(&PROFILER), "How often profiles are pushed.";
    "server.burst-limit" Int, "500", Used, "Requests of clients that may wait beyond `server.concurrency-limit`.";
    "server.concurrency-limit" Int, "1000", Used, "Requests of clients worked on at once.";
    "server.is-hosted" Bool, "false", Replaced(&HOSTED), "Run as Canonical's hosted service.";
    "server.is-leader" Bool, "", Replaced(&LEADER), "Whether this replica runs the background work.";
    "server.log-level" Text, "info", Used, "`error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,livepatch_onprem::db=debug`.";
    "server.redirect-downloads" Bool, "false", Used, "Answer downloads with a redirect to `server.url-template` instead of the bytes.";
    "server.server-address" Address, "127.0.0.1:8080", Used, "Where clients and administrators connect.";
    "server.url-template" Text, "", Used, "How clients reach patch files, with `{filename}` in it; not given: made from the request's `Host`.";
    "timescale_db.connection-string" Connection, "", Replaced(&TIMESCALE), "The TimescaleDB database.";
    "timescale_db.connection_lifetime_max" Duration, "10m", Replaced(&TIMESCALE), "Age at which a connection is renewed.";
    "timescale_db.connection_pool_max" Int, "10", Replaced(&TIMESCALE), "Connections at most.";
    "timescale_db.enabled" Bool, "false", Replaced(&TIMESCALE), "Write machine reports to TimescaleDB.";
    "timescale_db.flush_timeout" Duration, "1m", Replaced(&TIMESCALE), "How long a write may take.";
    "timescale_db.work_mem" Int, "16", Replaced(&TIMESCALE), "`work_mem` of its connections, in MiB.";
    "tracing.enabled" Bool, "false", Used, "Push traces over OpenTelemetry.";
    "tracing.sample-rate" Float, "1.0", Used, "The share of requests that are traced, from 0 to 1.";
    "tracing.service-name" Text, "livepatch-server", Used, "The service name the traces carry.";
}
