//! Tables of environments and what they mean.

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<ExportConfig, ConfigError> {
    ExportConfig::from_lookup(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

/// Checks which addresses an environment leads to.
fn check_urls(variables: &[(&str, &str)], traces: Option<&str>, logs: Option<&str>) {
    let config = read(variables).unwrap();
    assert_eq!(config.traces.as_ref().map(|signal| signal.url.as_str()), traces, "{variables:?}");
    assert_eq!(config.logs.as_ref().map(|signal| signal.url.as_str()), logs, "{variables:?}");
}

#[test]
fn export_is_off_until_asked_for() {
    check_urls(&[], None, None);
    check_urls(&[("OTEL_SERVICE_NAME", "x"), ("OTEL_BSP_SCHEDULE_DELAY", "1")], None, None);
    check_urls(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")], None, None);
}

#[test]
fn addresses_follow_the_standard() {
    let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (traces, logs) = (Some("http://c:4318/v1/traces"), Some("http://c:4318/v1/logs"));
    check_urls(&[(base, "http://c:4318")], traces, logs);
    check_urls(&[(base, "http://c:4318/")], traces, logs);
    check_urls(&[(base, "http://c:4318"), ("OTEL_TRACES_EXPORTER", "none")], None, logs);
    check_urls(&[(base, "http://c:4318"), ("OTEL_LOGS_EXPORTER", "none")], traces, None);
    check_urls(&[(base, "http://c:4318"), ("OTEL_SDK_DISABLED", "true")], None, None);
    check_urls(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/in")], Some("https://t/in"), None);
    check_urls(&[("OTEL_LOGS_EXPORTER", "otlp")], None, Some("http://localhost:4318/v1/logs"));
}

#[test]
fn refusals_say_what_to_do() {
    let check = |variables: &[(&str, &str)], expected: &str| {
        assert_eq!(read(variables).unwrap_err().to_string(), expected);
    };
    check(
        &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        "OTEL_EXPORTER_OTLP_PROTOCOL is `grpc`, but only `http/protobuf` is supported: unset it, and point the \
         endpoint to the collector's HTTP port (usually 4318, not 4317)",
    );
    check(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")],
        "OTEL_EXPORTER_OTLP_ENDPOINT is `localhost:4318`: wanted an address such as http://localhost:4318",
    );
}

#[test]
fn settings_are_read_per_signal() {
    let config = read(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x=y"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "20"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "7"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "8"),
    ])
    .unwrap();
    let (traces, logs) = (config.traces.unwrap(), config.logs.unwrap());
    let millis = Duration::from_millis;
    assert_eq!(traces.headers, [("api-key".to_owned(), "a b".to_owned())]);
    assert_eq!(logs.headers, [("x".to_owned(), "y".to_owned())]);
    assert_eq!((traces.timeout, logs.timeout), (millis(20), millis(1500)));
    assert_eq!((traces.gzip, logs.gzip), (true, false));
    assert_eq!((traces.batch.queue_items_max, traces.batch.batch_items_max), (100, 100));
    assert_eq!((logs.batch.queue_items_max, logs.batch.batch_items_max), (2048, 512));
    assert_eq!((traces.batch.schedule_delay, logs.batch.schedule_delay), (millis(5000), millis(7)));
    assert_eq!(logs.batch.export_timeout, millis(8));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn bad_values_are_ignored_with_a_warning() {
    let config = read(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_TRACES_EXPORTER", "zipkin,otlp"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "secret-without-key"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "4096"),
    ])
    .unwrap();
    assert_eq!(
        config.warnings,
        [
            "OTEL_TRACES_EXPORTER names `zipkin`, which is ignored: wanted `otlp` or `none`",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS: `secr…` is ignored: wanted key=value",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION `zstd` is ignored: wanted `gzip` or `none`",
            "OTEL_BSP_SCHEDULE_DELAY `soon` is no whole number: 5000 is used",
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE 4096 is above OTEL_BLRP_MAX_QUEUE_SIZE 2048: 2048 is used",
        ]
    );
}

#[test]
fn the_service_name_is_the_engines() {
    let listed = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=listed,deployment.environment=lab");
    let rest = [("deployment.environment".to_owned(), "lab".to_owned())];
    let config = read(&[listed]).unwrap();
    assert_eq!(config.resource.engine_service_name.as_deref(), Some("listed"));
    assert_eq!(config.resource.attributes, rest);
    let config = read(&[listed, ("OTEL_SERVICE_NAME", "named")]).unwrap();
    assert_eq!(config.resource.engine_service_name.as_deref(), Some("named"));
}
