//! The closed sets of label values that are defined here and nowhere else.

use super::family::labels;

labels! {
    /// What a request showed to say who it is.
    TokenKind {
        /// An auth token, at registration.
        Auth => "auth-token",
        /// A machine token.
        Machine => "machine-token",
        /// A resource token of Ubuntu Pro.
        Resource => "resource-token",
        /// A session of an administrator.
        Session => "session",
                /// A name and a password.
        Password => "password",
        /// A service token.
        Service => "service-token",
        /// A token of the identity provider.
        Oidc => "oidc-token",
        /// A sync token of another server.
        Sync => "sync-token",
        /// Nothing, or nothing that is known.
        None => "none",
    }
}

labels! {
    /// Why a check-in was answered but not stored.
    NotStored {
        /// Too many were waiting.
        QueueFull => "queue-full",
        /// The database refused or could not be reached.
        Database => "database",
        /// The server was stopping.
        Shutdown => "shutdown",
    }
}

labels! {
    /// What became of a bundle that was brought in.
    IngestOutcome {
        /// It is in the catalog.
        Stored => "stored",
        /// It was in the catalog already.
        AlreadyThere => "already-there",
        /// It was set aside, with its reason.
        Quarantined => "quarantined",
        /// It was not a bundle at all, or over a limit.
        Refused => "refused",
        /// The store or the database failed; trying again is right.
        Failed => "failed",
    }
}

labels! {
    /// What did not verify.
    Verification {
        /// A module's signature.
        Signature => "signature",
        /// A bundle's name against its content.
        Content => "content",
        /// An object of the store against its hash.
        Object => "object",
    }
}

labels! {
    /// Why a connection was closed before its client wanted it.
    CutOff {
        /// The TLS handshake did not end in time.
        Handshake => "handshake",
        /// The head of a request did not come in time.
        Header => "header",
        /// No further request came in time.
        Idle => "idle",
        /// An answer was not taken in time.
        Write => "write",
        /// Its place was needed, and its client had kept it waiting longest.
        Evicted => "evicted",
    }
}

labels! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// The client shows no certificate and has to.
        NoCertificate => "no-certificate",
        /// The certificate that the client shows is not believed.
        BadCertificate => "bad-certificate",
        /// The client speaks no version that is still in use.
        OldVersion => "old-version",
        /// The client speaks HTTP without TLS.
        PlainHttp => "plain-http",
        /// The client went away; it may not trust the server.
        Gone => "gone",
        /// Something else.
        Other => "other",
    }
}

labels! {
    /// What became of a changed certificate.
    TlsReload {
        /// It is in use.
        Done => "done",
        /// It cannot be used; the one before it still is.
        Refused => "refused",
    }
}

labels! {
    /// Why a new connection was closed at once.
    Refusal {
        /// Its address has all the connections that it may have, and all are at work.
        Address => "address",
        /// All connections there may be are at work.
        Full => "full",
    }
}

labels! {
    /// How a run of sync ended.
    SyncEnd {
        /// Everything is visible.
        Done => "done",
        /// Something went wrong.
        Failed => "failed",
        /// A person must confirm.
        Waiting => "waiting",
    }
}

labels! {
    /// What came of an attempt to deliver an event.
    DeliveryResult {
        /// The receiver has it.
        Delivered => "delivered",
        /// It is tried again.
        Failed => "failed",
        /// It is given up.
        Dead => "dead",
    }
}
