//! Our own keys. Their defaults are also those of the types in `model.rs`; a test compares the two.

use super::Kind::{Bool, Bytes, Choice, Duration, Int, List, Path, Paths, Secret, Text};
use super::Status::Used;

super::keys! { Ours;
    "auth.machine-token-key" Secret, "", Used, "Key of the machine tokens' authentication codes, at least 32 bytes in hexadecimal; not given: made once and kept in the database.";
    "auth.session.idle" Duration, "1h", Used, "A session of an administrator that is unused for this long ends.";
    "auth.session.lifetime" Duration, "12h", Used, "A session of an administrator ends at this age, used or not.";
    "check-in.interval" Duration, "1h", Used, "How often clients are told to check in; whole minutes.";
    "check-in.queue" Int, "20000", Used, "Check-ins that may wait for the database; beyond that clients are asked to try again later.";
    "contracts.cache" Duration, "5m", Used, "How long an answer of the contracts service is believed without asking again.";
    "database.ca" Path, "", Used, "PEM file of the authority that signed the database's certificate.";
    "ingest.max-bundle-bytes" Bytes, "64MiB", Used, "The largest tarball that is taken in, compressed.";
    "ingest.max-entries" Int, "256", Used, "The most entries a tarball may have.";
    "ingest.max-unpacked-bytes" Bytes, "256MiB", Used, "The largest sum of a tarball's entries.";
    "ingest.parallelism" Int, "4", Used, "Bundles that are worked on at once.";
    "ingest.spool-directory" Path, "", Used, "Where a bundle is kept while it is received; not given: the system's temporary directory.";
    "patch-cache.max-bytes" Bytes, "64MiB", Used, "Bytes of payloads kept in memory at most.";
    "patch-storage.s3-ca" Path, "", Used, "PEM file of the authority that signed the S3 endpoint's certificate.";
    "patch-storage.s3-path-style" Bool, "true", Used, "Address the bucket in the path instead of in the host name.";
    "patch-storage.s3-presign" Duration, "0s", Used, "Answer downloads with a redirect to the bucket that is signed and valid for this long; 0s: never.";
    "patch-storage.s3-timeout" Duration, "30s", Used, "How long one request to the bucket may take.";
    "patch-sync.directory" Path, "", Used, "The folder of tarballs that the driver `directory` takes in.";
    "patch-sync.downloader-command" Text, "canonical-livepatch-downloader", Used, "The command of the driver `downloader`: a name on the search path, or a path.";
    "patch-sync.downloader-tarballs" Path, "", Used, "Where that command keeps its tarballs; not given: snap/canonical-livepatch-downloader/common/tarballs in the home directory.";
    "patch-sync.downloader-tier" Text, "", Used, "The tier of Canonical's to take patches from, as that command knows it; not given: its own default, which is documented as Proposed.";
    "patch-sync.driver" Choice(&["auto", "peer", "downloader", "directory"]), "auto", Used, "How patches are fetched; auto: `directory` if patch-sync.directory is given, `downloader` if patch-sync.upstream-url is Canonical's, else `peer`.";
    "patch-sync.index-lifetime" Duration, "1d", Used, "How long an index that this server signs for others is valid.";
    "patch-sync.kernel-prefixes" List, "", Used, "Beginnings of kernels to fetch patches for, e.g. 5.15.0-; not given: all.";
    "patch-sync.max-shrink" Int, "10", Used, "Percent of the payloads known from upstream that may be missing at once; more waits for `livepatch-admin sync confirm`.";
    "patch-sync.only-our-kernels" Bool, "false", Used, "Fetch patches only for kernels that machines of this server run.";
    "patch-sync.our-kernels-grace" Duration, "30d", Used, "How long a kernel counts as run after the last machine reported it.";
    "patch-sync.parallelism" Int, "4", Used, "Payloads fetched at once.";
    "patch-sync.stall-timeout" Duration, "30s", Used, "An upstream that sends less than a kibibyte a second for this long is given up.";
    "patch-sync.upstream-ca" Path, "", Used, "PEM file of the authority that signed the upstream server's certificate.";
    "patch-sync.upstream-key" Text, "", Used, "The key that the upstream server signs its index with, as `livepatch-server keys show` prints it; not given: the key of the first contact.";
    "patch-trust.certificates" Paths, "", Used, "PEM or DER files with the certificates whose module signatures are trusted.";
    "patch-trust.policy" Choice(&["require", "warn", "off"]), "require", Used, "What is asked of a module's signature before its payload may be served.";
    "server.body-timeout" Duration, "2m", Used, "How long a client may take to send the body of a request; for an upload, how long it may send nothing, and in the long run it has to send 16 KiB a second.";
    "server.header-timeout" Duration, "10s", Used, "How long a client may take to send the head of a request.";
    "server.idle-timeout" Duration, "1m", Used, "How long a connection is kept open after an answer without another request.";
    "server.log-format" Choice(&["json", "text"]), "json", Used, "One JSON object a line, or text for people.";
    "server.max-connections" Int, "20000", Used, "Open connections in all; for one more, those are closed that have waited longest for their clients.";
    "server.max-connections-per-address" Int, "10000", Used, "Open connections of one IPv4 address or IPv6 /64, which may be that of a proxy or NAT; 0: no bound but that in all.";
    "server.shutdown-grace" Duration, "30s", Used, "How long running requests may take after a signal to stop.";
    "server.write-timeout" Duration, "2m", Used, "How long a client may take nothing of an answer that is being sent; in the long run it has to take 16 KiB a second.";
}
