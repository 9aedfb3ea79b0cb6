use std::io::Write;
use std::time::Duration;

use super::*;
use crate::config::{LogFormat, OtlpEndpoint, SessionListing};
use gitorial_relay::NodeSettings;
use gitorial_relay::http::{HttpSettings, Origins};

const NO_ENV: [(&str, &str); 0] = [];

fn read_with(flags: &[&str], env: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let arguments = std::iter::once("gitorial-relay").chain(flags.iter().copied()).map(OsString::from);
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    read(arguments, env, |command| {
        command.subcommand(
            Command::new("knit").arg(clap::arg!(<ID>)).arg(clap::arg!(--"session-ttl" <N>).value_parser(["1"])),
        )
    })
}

fn config(flags: &[&str], env: &[(&str, &str)]) -> Config {
    match read_with(flags, env) {
        Ok(Invocation::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

/// The error message, which must be one sentence.
fn complaint(flags: &[&str], env: &[(&str, &str)]) -> String {
    let text = read_with(flags, env).expect_err("wrong").to_string();
    assert!(!text.contains('\n') && !text.contains("  "), "{text:?}");
    text
}

fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn serve_is_the_default_command() {
    assert_eq!(config(&[], &NO_ENV), Config::default());
    assert_eq!(config(&["serve"], &NO_ENV), Config::default());
    let flags = ["--listen", "[::1]:0", "--session-ttl=5m"];
    assert_eq!(config(&["serve", flags[0], flags[1], flags[2]], &NO_ENV), config(&flags, &NO_ENV));
}

#[test]
fn settings_come_from_flag_environment_file_then_default() {
    let (_file, path) = file("session-ttl = \"1m\"\ngrace-period = \"1s\"\nping-interval = \"9s\"");
    let env = [("RELAY_CONFIG", path.as_str()), ("RELAY_SESSION_TTL", "2m"), ("RELAY_GRACE_PERIOD", "2s")];
    for command in [&["--session-ttl", "3m"][..], &["serve", "--session-ttl", "3m"]] {
        let config = config(command, &env);
        let seconds = [config.session_ttl, config.grace_period, config.ping_interval, config.drain_timeout];
        assert_eq!(seconds.map(|duration| duration.as_secs()), [180, 2, 9, 25]);
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    assert_eq!(config(&[], &[("RELAY_REDIS_URL", ""), ("RELAY_CONFIG", "")]), Config::default());
}

#[test]
fn the_log_filter_has_a_short_variable_too() {
    let level = |env: &[(&str, &str)]| config(&[], env).log_level.as_str().to_owned();
    assert_eq!(level(&[("RELAY_LOG", "debug")]), "debug");
    assert_eq!(level(&[("RELAY_LOG", "debug"), ("RELAY_LOG_LEVEL", "warn")]), "warn");
}

#[test]
fn a_file_may_use_toml_numbers_booleans_and_arrays() {
    let (_file, path) = file(
        "max-frame-bytes = 4096\nredis-fail-fast = false\ndemo-page = false\nlog-format = \"json\"\n\
         allowed-origins = [\"https://a.example\", \"vscode-webview://b\"]",
    );
    let config = config(&["--config", &path], &NO_ENV);
    assert_eq!((config.max_frame_bytes, config.demo_page, config.log_format), (4096, false, LogFormat::Json));
    assert_eq!(config.allowed_origins, Origins::List(vec!["https://a.example".into(), "vscode-webview://b".into()]));
}

#[test]
fn a_switch_needs_no_value_on_the_command_line() {
    let url = "--redis-url=redis://h";
    assert!(config(&[url, "--redis-fail-fast"], &NO_ENV).redis_fail_fast);
    assert!(!config(&[url, "--redis-fail-fast=off"], &[("RELAY_REDIS_FAIL_FAST", "on")]).redis_fail_fast);
}

#[test]
fn a_wrong_value_is_one_sentence_with_name_and_reason() {
    let cases: &[(&[&str], &str)] = &[
        (&["--session-ttl", "abc"], "--session-ttl (environment RELAY_SESSION_TTL): \"abc\" is not a duration"),
        (&["serve", "--listen", "here"], "--listen (environment RELAY_LISTEN): \"here\" is not an address"),
        (&["--listen"], "--listen (environment RELAY_LISTEN): needs a value"),
        (&["--max-frame-bytes", "9"], "\"9\" is not a whole number from 1024 to 16777216"),
        (&["--session-listing", "all"], "RELAY_SESSION_LISTING): \"all\" is not one of off, admin, public"),
        (&["--node-id", "a b"], "\"a b\" must be 1 to 64 letters"),
        (&["--redis-prefix", "a{b}:"], "\"a{b}:\" must be 1 to 64 letters, digits, colons"),
        (&["--allowed-origins", "https://a.example/"], "is not an origin like https://example.org"),
        (&["--allowed-origins", "*,https://a.example"], "is not an origin like https://example.org"),
        (&["--ws-paths", "ws"], "is not a path like /ws"),
        (&["--ws-paths", "/api/x"], "/api is the relay's own"),
        (&["--path-prefix", "relay"], "is not a path like /relay"),
        (&["--path-prefix", "/api/"], "is under /api, which is the relay's own"),
        (&["--conflict-resolution", "coin"], "is not one of first_come_first_served"),
        (&["--log-level", "inof"], "is not a log filter"),
        (&["--demo-page", "maybe"], "must be on or off"),
        (&["--otlp-endpoint", "https://collector:4318"], "is not a collector address like http://127.0.0.1:4318"),
        (
            &["--session-ttl", "1m", "--session-ttl", "2m"],
            "--session-ttl (environment RELAY_SESSION_TTL): is given twice",
        ),
        (&["--sesion-ttl", "1m"], "unknown option \"--sesion-ttl\" (similar: --session-ttl); try --help"),
        (&["srve"], "try --help"),
        (&["--config", "/nowhere/relay.toml"], "settings file /nowhere/relay.toml: cannot be read"),
    ];
    for (flags, expected) in cases {
        let text = complaint(flags, &NO_ENV);
        assert!(text.contains(expected), "{flags:?}: {text}");
    }
}

#[test]
fn conflicting_settings_are_one_sentence() {
    let redis = "--redis-url=redis://h";
    let cases: &[(&[&str], &str)] = &[
        (&["--session-ttl", "13h"], "must not be longer than --session-max-lifetime (RELAY_SESSION_MAX_LIFETIME)"),
        (&["--lease-ttl", "3s"], "--lease-ttl (environment RELAY_LEASE_TTL): must be longer than two times"),
        (&[redis, "--redis-command-timeout", "4s"], "must be shorter than --lease-ttl"),
        (&["--ping-interval", "0s"], "must be at least 100ms"),
        (&["--session-max-lifetime", "10years"], "must be at most 366 days"),
        (&["--session-listing", "admin"], "needs a token; set --admin-token (RELAY_ADMIN_TOKEN)"),
        (&["--session-listing", "public", "--admin-token", "0123456789abcdef"], "lets any caller list"),
        (&["--path-prefix=/relay", "--ws-paths=/relay/api/x"], "with --path-prefix (RELAY_PATH_PREFIX) the API is at"),
        (&["--redis-fail-fast"], "set --redis-url (RELAY_REDIS_URL) too"),
        (&["--redis-wait-replicas", "1"], "set --redis-url (RELAY_REDIS_URL) too"),
    ];
    for (flags, expected) in cases {
        let text = complaint(flags, &NO_ENV);
        assert!(text.contains(expected), "{flags:?}: {text}");
    }
}

#[test]
fn a_wrong_file_is_one_sentence_that_names_it() {
    let cases = [
        ("sesion-ttl = \"1m\"", "unknown setting \"sesion-ttl\""),
        ("config = \"other.toml\"", "unknown setting \"config\""),
        ("listen = \"127.0.0.1:0\"\nsession-ttl = ", "line 2 is not valid TOML"),
        ("listen = 1.5", "listen must be text in quotes"),
        ("[listen]\nport = 1", "listen must be text in quotes"),
    ];
    for (text, expected) in cases {
        let (_file, path) = file(text);
        let text = complaint(&["--config", &path], &NO_ENV);
        assert!(text.contains(&path) && text.contains(expected), "{text}");
    }
    let (_file, path) = file("session-ttl = 30");
    let text = complaint(&["--config", &path], &NO_ENV);
    assert!(text.contains(&format!("\"30\" in {path} is not a duration")), "{text}");
    assert!(!complaint(&[], &[("RELAY_SESSION_TTL", "30")]).contains(" in "));
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = [
        ("RELAY_ADMIN_TOKEN", "hunter2hunter2hunter2"),
        ("RELAY_CLUSTER_SECRET", "hunter2hunter2hunter2,hunter2hunter2hunter3"),
        ("RELAY_REDIS_URL", "redis://u:hunter2@h?p=hunter2"),
    ];
    let config = config(&["--session-listing=admin"], &secrets);
    assert_eq!(config.session_listing, SessionListing::Admin);
    assert!(!format!("{config:?} {:?} {:?}", config.http(), config.redis()).contains("hunter2"));
    for flags in [
        ["--admin-token=hunter2"],
        ["--cluster-secret=hunter2"],
        ["--redis-url=hunter2"],
        ["--redis-url=hunter2://x"],
        ["--admin-tokn=hunter2"],
    ] {
        assert!(!complaint(&flags, &NO_ENV).contains("hunter2"), "{flags:?}");
    }
    let Ok(Invocation::Print(help)) = read_with(&["--help"], &secrets) else { panic!("no help") };
    assert!(!help.contains("hunter2"));
}

#[test]
fn help_names_every_setting_with_its_variable() {
    for flags in [&["--help"][..], &["serve", "--help"]] {
        let Ok(Invocation::Print(help)) = read_with(flags, &NO_ENV) else { panic!("no help") };
        for name in names() {
            assert!(help.contains(&format!("--{name}")) && help.contains(&env_name(&name)), "{name}\n{help}");
        }
        assert!(help.starts_with("Keeps websites") || help.starts_with("Runs a relay"), "{help}");
        assert!(help.contains("[default: 30m]") && help.contains("RELAY_CONFIG"));
    }
    assert_eq!(
        read_with(&["--version"], &NO_ENV),
        Ok(Invocation::Print(format!("gitorial-relay {}\n", env!("CARGO_PKG_VERSION"))))
    );
}

#[test]
fn the_example_file_has_every_setting_at_its_default() {
    let text = include_str!("../../../config.example.toml");
    let (_file, path) = file(text);
    assert_eq!(config(&["--config", &path], &NO_ENV), Config::default());
    // The settings without a default are comments in the file; with them the file must parse, too.
    let uncommented: String =
        text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    let table: toml::Table = toml::from_str(&uncommented).unwrap();
    let (mut known, mut named) = (names(), table.keys().cloned().collect::<Vec<_>>());
    known.sort();
    named.sort();
    assert_eq!(named, known);
}

#[test]
fn settings_are_shown_with_their_source_and_without_secrets() {
    let (_file, path) = file("grace-period = \"1s\"\nping-interval = \"9s\"\ndrain-timeout = \"7s\"");
    let env = [
        ("RELAY_CONFIG", path.as_str()),
        ("RELAY_PING_INTERVAL", "8s"),
        ("RELAY_DRAIN_TIMEOUT", "7s"),
        ("RELAY_REDIS_URL", "redis://u:hunter2@h:1/0?p=hunter2"),
        ("RELAY_ADMIN_TOKEN", "hunter2hunter2hunter2"),
    ];
    let settings = match read_with(&["check-config", "--session-ttl", "5m"], &env) {
        Ok(Invocation::Check(settings)) => settings,
        other => panic!("{other:?}"),
    };
    let known: Vec<String> = settings.iter().map(|setting| setting.name.clone()).collect();
    assert_eq!(known, names());
    assert!(!format!("{settings:?}").contains("hunter2"));
    let expected = [
        ("session-ttl", Some("5m"), Origin::Flag, "--session-ttl"),
        ("ping-interval", Some("8s"), Origin::Environment, "RELAY_PING_INTERVAL"),
        ("drain-timeout", Some("7s"), Origin::Environment, "RELAY_DRAIN_TIMEOUT"),
        ("grace-period", Some("1s"), Origin::File, "settings file"),
        ("lease-ttl", Some("5s"), Origin::Default, "default"),
        ("redis-url", Some("redis://***@h:1/0?***"), Origin::Environment, "RELAY_REDIS_URL"),
        ("admin-token", Some("***"), Origin::Environment, "RELAY_ADMIN_TOKEN"),
        ("ops-listen", None, Origin::Default, "default"),
    ];
    for (name, value, origin, source) in expected {
        let setting = settings.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!((setting.value.as_deref(), setting.origin), (value, origin), "{name}");
        assert_eq!(setting.source(), source);
    }
}

#[test]
fn check_config_finds_what_serve_would_find() {
    for flags in [&["--session-ttl", "soon"][..], &["--session-listing", "admin"], &["--config", "/nowhere.toml"]] {
        let checked: Vec<&str> = ["check-config"].iter().chain(flags).copied().collect();
        assert_eq!(complaint(&checked, &NO_ENV), complaint(flags, &NO_ENV));
    }
}

#[test]
fn operator_commands_are_returned_without_reading_settings() {
    let Ok(Invocation::Own(matches)) = read_with(&["knit", "x"], &[("RELAY_SESSION_TTL", "soon")]) else {
        panic!("not handed back");
    };
    assert_eq!(matches.subcommand_name(), Some("knit"));
}

#[test]
fn a_possible_session_id_is_not_repeated() {
    let id = "0d6c36c4-9b7c-4ad5-8b0a-3f3f4d0d4a11";
    let cases = [
        (&[id][..], "unknown command; try --help"),
        (&["kni", id], "unknown command (similar: knit); try --help"),
        (&["knit", "x", id], "unexpected argument; try --help"),
        (&["knit"], "<ID> is missing; try --help"),
        (&["knit", "x", "--session-ttl", "2"], "--session-ttl: \"2\" is not one of 1; try --help"),
    ];
    for (flags, expected) in cases {
        assert_eq!(complaint(flags, &NO_ENV), expected);
    }
}

#[test]
fn a_node_is_named_after_its_host_unless_told_otherwise() {
    assert_eq!(config(&["--node-id", "a-1.b_c"], &NO_ENV).node_name().as_str(), "a-1.b_c");
    let name = Config::default().node_name();
    assert!(name.as_str().parse::<crate::config::NodeName>().is_ok());
}

#[test]
fn the_two_paths_of_old_clients_are_always_open() {
    let paths = config(&["--ws-paths", "/relay,/ws"], &NO_ENV).http().ws_paths;
    assert_eq!(paths, ["/", "/ws", "/relay"]);
}

#[test]
fn a_slash_at_the_end_of_the_path_prefix_does_not_count() {
    for (given, prefix) in [("/", ""), ("/relay", "/relay"), ("/a/relay/", "/a/relay")] {
        assert_eq!(config(&["--path-prefix", given], &NO_ENV).http().path_prefix, prefix);
    }
}

#[test]
fn a_collector_is_a_host_and_a_port() {
    for right in ["http://127.0.0.1:4318", "http://[::1]:4318/", "http://otel_collector:80"] {
        assert!(right.parse::<OtlpEndpoint>().is_ok(), "{right}");
    }
    for wrong in [
        "",
        "http://",
        "http://h",
        "http://:4318",
        "http://h:99999",
        "http://u:p@h:1",
        "http://h:1/v1",
        "http://h:1#x",
        "http://a:b:1",
    ] {
        assert!(wrong.parse::<OtlpEndpoint>().is_err(), "{wrong}");
    }
}

#[test]
fn the_defaults_are_those_of_the_library() {
    let config = Config::default();
    assert_eq!(config.http(), HttpSettings::default());
    let node = NodeSettings { name: NodeSettings::default().name, ..config.node() };
    assert_eq!(format!("{node:?}"), format!("{:?}", NodeSettings::default()));
}

#[test]
fn durations_may_be_written_in_parts() {
    assert_eq!(config(&["--drain-timeout", "1m 30s"], &NO_ENV).drain_timeout, Duration::from_secs(90));
}
