//! Listeners: which surfaces are answered on which address, with TLS or without.
//!
//! Administration and operations may have addresses of their own; there they cannot be crowded out by machines, whose
//! address answers for the rest.

use super::start::StartError;
use crate::config::Server;
use crate::http::serve::{Listener, serve};
use crate::http::tls::{Tls, Who};
use crate::http::{self, Surfaces};
use crate::service::Core;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The most connections of an address that only people and monitoring use.
const FEW: u32 = 256;

/// Where the surfaces are; the ports are the real ones also where `0` was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Machines.
    pub machines: SocketAddr,
    /// Administrators.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub ops: SocketAddr,
}

/// Sockets that are bound, and what will be answered on them.
pub(super) struct Bound {
    /// Where everything is.
    pub(super) addresses: Addresses,
    sockets: Vec<(TcpListener, Surfaces)>,
}

/// Which surfaces are on which address, with the key that names it.
fn plan(server: &Server) -> Vec<(SocketAddr, &'static str, Surfaces)> {
    let mut first = Surfaces::ALL;
    let mut others: Vec<(SocketAddr, &'static str, Surfaces)> = Vec::new();
    if let Some(address) = server.admin_address {
        first.admin = false;
        let admin = Surfaces {
            admin: true,
            ..Surfaces::NONE
        };
        others.push((address, "server.admin-address", admin));
    }
    if let Some(address) = server.ops_address {
        first.ops = false;
        let ops = Surfaces {
            ops: true,
            ..Surfaces::NONE
        };
        if let Some((_, _, shared)) = others.iter_mut().find(|(other, ..)| *other == address) {
            shared.ops = true;
        } else {
            others.push((address, "server.ops-address", ops));
        }
    }
    others.insert(0, (server.address, "server.server-address", first));
    others
}

/// Binds every address, or none.
pub(super) async fn bind(server: &Server) -> Result<Bound, StartError> {
    let mut sockets = Vec::new();
    let mut addresses = Addresses {
        machines: server.address,
        admin: server.address,
        ops: server.address,
    };
    for (address, key, surfaces) in plan(server) {
        let failed = |source| StartError::Listen {
            address,
            key,
            source,
        };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let real = socket.local_addr().map_err(failed)?;
        for (here, kept) in [
            (surfaces.machines, &mut addresses.machines),
            (surfaces.admin, &mut addresses.admin),
            (surfaces.ops, &mut addresses.ops),
        ] {
            if here {
                *kept = real;
            }
        }
        sockets.push((socket, surfaces));
    }
    Ok(Bound { addresses, sockets })
}

impl Bound {
    /// Serves on all of them until the server stops. The result is whether every request could end in time.
    pub(super) async fn serve(self, core: Arc<Core>, tls: Option<Arc<Tls>>) -> bool {
        let mut serving = JoinSet::new();
        for (socket, surfaces) in self.sockets {
            let who = if surfaces.machines {
                Who::Machines
            } else {
                Who::Others
            };
            let mut server = core.config.server.clone();
            if !surfaces.machines {
                server.max_connections = server.max_connections.min(FEW);
            }
            let listener = Listener {
                socket,
                tls: tls.as_ref().map(|tls| tls.acceptor(who)),
            };
            let front = http::front(Arc::clone(&core), surfaces);
            let core = Arc::clone(&core);
            serving.spawn(async move {
                let stopping = core.stopping.clone();
                serve(listener, front, &server, &core.metrics, stopping).await
            });
        }
        serving.join_all().await.into_iter().all(|drained| drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surfaces_move_to_their_own_addresses_and_are_nowhere_twice() {
        let address = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        for (admin, ops, expected) in [
            (None, None, vec![(8080, (true, true, true))]),
            (
                address(1),
                None,
                vec![(8080, (true, false, true)), (1, (false, true, false))],
            ),
            (
                None,
                address(2),
                vec![(8080, (true, true, false)), (2, (false, false, true))],
            ),
            (
                address(1),
                address(2),
                vec![
                    (8080, (true, false, false)),
                    (1, (false, true, false)),
                    (2, (false, false, true)),
                ],
            ),
            (
                address(1),
                address(1),
                vec![(8080, (true, false, false)), (1, (false, true, true))],
            ),
        ] {
            let server = Server {
                admin_address: admin,
                ops_address: ops,
                ..Server::default()
            };
            let planned: Vec<_> = plan(&server)
                .into_iter()
                .map(|(at, _, s)| (at.port(), (s.machines, s.admin, s.ops)))
                .collect();
            assert_eq!(planned, expected);
        }
    }
}
