"""An OTLP receiver that shares no code with the exporter under test.

It decodes what arrives over HTTP with the official protobuf package and prints it as JSON lines: first its port,
then one line for every request, span and log. `--answer STATUS[:RETRY_AFTER]`, given several times, says how to answer
the first requests; `--reject N` makes every answer a partial success. It ends when its standard input does.
"""

import argparse
import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

print_lock = threading.Lock()


def emit(line):
    with print_lock:
        print(json.dumps(line), flush=True)


def value(any_value):
    kind = any_value.WhichOneof("value")
    return getattr(any_value, kind) if kind else None


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def emit_span(resource, scope, span):
    emit({
        "type": "span",
        "resource": resource,
        "scope": scope.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "name": span.name,
        "kind": trace_pb2.Span.SpanKind.Name(span.kind),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "flags": span.flags,
        "status": trace_pb2.Status.StatusCode.Name(span.status.code),
        "status_message": span.status.message,
        "attributes": attributes(span.attributes),
        "events": [{"name": event.name, "time": event.time_unix_nano} for event in span.events],
    })


def emit_log(resource, scope, record):
    emit({
        "type": "log",
        "resource": resource,
        "scope": scope.name,
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
        "time": record.time_unix_nano,
        "severity": logs_pb2.SeverityNumber.Name(record.severity_number),
        "severity_text": record.severity_text,
        "body": value(record.body),
        "attributes": attributes(record.attributes),
    })


def read_traces(body, reject):
    request = traces.ExportTraceServiceRequest.FromString(body)
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                emit_span(attributes(group.resource.attributes), scope.scope, span)
    answer = traces.ExportTraceServiceResponse()
    if reject:
        answer.partial_success.rejected_spans = reject
        answer.partial_success.error_message = "told to reject"
    return answer


def read_logs(body, reject):
    request = logs.ExportLogsServiceRequest.FromString(body)
    for group in request.resource_logs:
        for scope in group.scope_logs:
            for record in scope.log_records:
                emit_log(attributes(group.resource.attributes), scope.scope, record)
    answer = logs.ExportLogsServiceResponse()
    if reject:
        answer.partial_success.rejected_log_records = reject
        answer.partial_success.error_message = "told to reject"
    return answer


READERS = {"/v1/traces": read_traces, "/v1/logs": read_logs}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): text for name, text in self.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        emit({"type": "request", "path": self.path, "headers": headers})
        with print_lock:
            planned = self.server.answers.pop(0) if self.server.answers else "200"
        status, _, retry_after = planned.partition(":")
        answer = b""
        if status == "200":
            answer = READERS[self.path](body, self.server.reject).SerializeToString()
        self.send_response(int(status))
        if retry_after:
            self.send_header("retry-after", retry_after)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", action="append", default=[])
    parser.add_argument("--reject", type=int, default=0)
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.answers = options.answer
    server.reject = options.reject
    threading.Thread(target=server.serve_forever, daemon=True).start()
    emit({"type": "listening", "port": server.server_address[1]})
    sys.stdin.read()


if __name__ == "__main__":
    main()
