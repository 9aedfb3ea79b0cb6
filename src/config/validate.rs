//! Checks of settings that depend on each other.

use std::time::Duration;

use humantime::format_duration;

use super::error::env_name;
use super::{Config, ConfigError, SessionListing};

/// The longest duration: it keeps every sum of times far from overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Config {
    /// Checks that the settings fit together.
    ///
    /// # Errors
    ///
    /// One sentence about the first problem.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.durations_in_range()?;
        self.leases_hold()?;
        self.sessions_end()?;
        self.listing_is_guarded()?;
        self.spans_can_be_sent()?;
        self.paths_are_free()?;
        self.redis_is_meant()
    }

    fn durations_in_range(&self) -> Result<(), ConfigError> {
        let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let ranges = [
            ("redis-connect-timeout", self.redis_connect_timeout, milli),
            ("redis-command-timeout", self.redis_command_timeout, milli),
            ("session-ttl", self.session_ttl, second),
            ("session-max-lifetime", self.session_max_lifetime, second),
            ("grace-period", self.grace_period, Duration::ZERO),
            ("drain-timeout", self.drain_timeout, Duration::ZERO),
            ("ping-interval", self.ping_interval, Duration::from_millis(100)),
            ("heartbeat-interval", self.heartbeat_interval, Duration::from_millis(10)),
            ("lease-ttl", self.lease_ttl, milli),
            ("lease-margin", self.lease_margin, milli),
        ];
        for (name, value, least) in ranges {
            if value < least {
                return Err(ConfigError::setting(name, format!("must be at least {}", format_duration(least))));
            }
            if value > LONGEST {
                return Err(ConfigError::setting(name, "must be at most 366 days"));
            }
        }
        Ok(())
    }

    fn leases_hold(&self) -> Result<(), ConfigError> {
        let least = self.heartbeat_interval * 2 + self.lease_margin;
        if self.lease_ttl <= least {
            let problem = format!(
                "must be longer than two times {} plus {}, which is {}",
                other("heartbeat-interval"),
                other("lease-margin"),
                format_duration(least)
            );
            return Err(ConfigError::setting("lease-ttl", problem));
        }
        let lease = self.lease_ttl - self.lease_margin;
        if self.redis_url.is_some() && self.redis_command_timeout >= lease {
            let problem = format!(
                "must be shorter than {} minus {}, which is {}: a lease would lapse while its renewal waits",
                other("lease-ttl"),
                other("lease-margin"),
                format_duration(lease)
            );
            return Err(ConfigError::setting("redis-command-timeout", problem));
        }
        Ok(())
    }

    fn sessions_end(&self) -> Result<(), ConfigError> {
        if self.session_ttl > self.session_max_lifetime {
            let problem = format!(
                "must not be longer than {}, which is {}; lower this setting or raise that one",
                other("session-max-lifetime"),
                format_duration(self.session_max_lifetime)
            );
            return Err(ConfigError::setting("session-ttl", problem));
        }
        Ok(())
    }

    fn listing_is_guarded(&self) -> Result<(), ConfigError> {
        match (self.session_listing, &self.admin_token) {
            (SessionListing::Admin, None) => {
                let problem = format!("\"admin\" needs a token; set {}", other("admin-token"));
                Err(ConfigError::setting("session-listing", problem))
            }
            // An operator who sets a token expects that it is required.
            (SessionListing::Public, Some(_)) => {
                let problem =
                    format!("is set, but {} lets any caller list; set that to admin", other("session-listing"));
                Err(ConfigError::setting("admin-token", problem))
            }
            (SessionListing::Off, _) | (SessionListing::Admin, Some(_)) | (SessionListing::Public, None) => Ok(()),
        }
    }

    fn spans_can_be_sent(&self) -> Result<(), ConfigError> {
        if self.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
            let problem = "has no effect, because this program was built without the feature otlp; remove the setting, or \
                           build with --features otlp";
            return Err(ConfigError::setting("otlp-endpoint", problem));
        }
        Ok(())
    }

    /// The API has the same place under the prefix, so no WebSockets can be there.
    fn paths_are_free(&self) -> Result<(), ConfigError> {
        let api = format!("{}/api", self.path_prefix.as_str());
        let under = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let taken = |path: &&String| path.strip_prefix(&api).is_some_and(under);
        match self.ws_paths.as_slice().iter().find(taken) {
            Some(path) => {
                let problem = format!("has {path:?}, but with {} the API is at {api}", other("path-prefix"));
                Err(ConfigError::setting("ws-paths", problem))
            }
            None => Ok(()),
        }
    }

    /// A setting that only has an effect with Redis shows that Redis was intended, so the node must not run alone.
    fn redis_is_meant(&self) -> Result<(), ConfigError> {
        let given = [
            ("redis-fail-fast", self.redis_fail_fast),
            ("redis-wait-replicas", self.redis_wait_replicas > 0),
            ("cluster-secret", self.cluster_secret.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) if self.redis_url.is_none() => {
                Err(ConfigError::setting(name, format!("has no effect without Redis; set {} too", other("redis-url"))))
            }
            _ => Ok(()),
        }
    }
}

fn other(name: &str) -> String {
    format!("--{name} ({})", env_name(name))
}
