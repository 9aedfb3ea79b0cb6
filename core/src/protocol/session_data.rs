//! `SessionData`: a session as the HTTP API shows it (docs/protocol.md, "HTTP API").

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::{ClientId, Millis, SessionId};
use crate::session::{Session, Status};

/// The last millisecond that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
const LAST_MILLIS: Millis = 253_402_300_799_999;

/// One session in the JSON form of the HTTP API. Its `Debug` form does not show the id, which is a secret.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionData {
    id: String,
    created_at: String,
    expires_at: String,
    last_activity: String,
    client_count: usize,
    active_client_id: Option<ClientId>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Arc<RawValue>>,
    #[serde(skip)]
    session: SessionId,
}

impl SessionData {
    /// The data of the document at `now`, in the store's time.
    #[must_use]
    pub fn of(id: SessionId, session: &Session, now: Millis) -> Self {
        Self {
            id: id.reveal(),
            created_at: rfc3339(session.info.created_at),
            expires_at: rfc3339(session.expires_at()),
            last_activity: rfc3339(session.last_activity()),
            client_count: session.live_clients(),
            active_client_id: session.core.controller.as_ref().map(|controller| controller.client.clone()),
            status: session.status_at(now),
            metadata: session.info.metadata.clone(),
            session: id,
        }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session
    }
}

impl fmt::Debug for SessionData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionData")
            .field("session", &self.session)
            .field("client_count", &self.client_count)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The time as `2025-06-11T09:30:00.000Z`.
fn rfc3339(at: Millis) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.min(LAST_MILLIS))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Info, Strategy};

    fn data(metadata: Option<&str>) -> SessionData {
        let metadata = metadata.map(|text| Arc::from(RawValue::from_string(text.to_owned()).unwrap()));
        let info = Info {
            created_at: 1_749_634_200_000,
            ttl: 60_000,
            ends_at: u64::MAX,
            strategy: Strategy::default(),
            metadata,
        };
        SessionData::of(SessionId::from_bits(7), &Session::new(Arc::new(info)), 1_749_634_200_001)
    }

    #[test]
    fn it_reads_as_the_api_promises() {
        let data = data(Some("{\"b\": 1.0,  \"a\":2}"));
        let id = data.id().reveal();
        let expected = format!(
            "{{\"id\":\"{id}\",\"createdAt\":\"2025-06-11T09:30:00.000Z\",\"expiresAt\":\"2025-06-11T09:31:00.000Z\",\
             \"lastActivity\":\"2025-06-11T09:30:00.000Z\",\"clientCount\":0,\"activeClientId\":null,\
             \"status\":\"active\",\"metadata\":{{\"b\": 1.0,  \"a\":2}}}}"
        );
        assert_eq!(serde_json::to_string(&data).unwrap(), expected);
    }

    #[test]
    fn metadata_is_absent_when_none_was_given() {
        assert!(!serde_json::to_string(&data(None)).unwrap().contains("metadata"));
    }

    #[test]
    fn debug_does_not_show_the_id() {
        let data = data(None);
        assert!(!format!("{data:?}").contains(&data.id().reveal()));
    }

    #[test]
    fn a_time_beyond_the_calendar_is_its_last_day() {
        assert_eq!(rfc3339(Millis::MAX), "9999-12-31T23:59:59.999Z");
    }
}
