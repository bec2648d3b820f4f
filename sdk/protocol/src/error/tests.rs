//! Checks that names, numbers, JSON and pages of the error codes agree.

use super::*;

#[test]
fn names_numbers_and_json_agree() {
    for (place, &code) in ErrorCode::ALL.iter().enumerate() {
        assert_eq!(code.status() as usize, place + 1, "status numbers have no gaps");
        assert_eq!(ErrorCode::from_status(code.status()), Some(code));
        assert_eq!(code.as_str().parse::<ErrorCode>(), Ok(code));
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
    assert_eq!(ErrorCode::from_status(STATUS_OK), None);
    assert_eq!(ErrorCode::from_status(u32::MAX), None);
    assert!("Not_Found".parse::<ErrorCode>().is_err());
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    for code in ErrorCode::ALL {
        let page = std::fs::read_to_string(folder.join(format!("{code}.md")))
            .unwrap_or_else(|error| panic!("docs/errors/{code}.md: {error}"));
        assert!(page.starts_with(&format!("# {code}\n")), "{code}.md opens with its code");
        for part in ["## What happened", "## What to try"] {
            assert!(page.contains(part), "{code}.md lacks `{part}`");
        }
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".md").unwrap();
        assert!(stem == "README" || stem.parse::<ErrorCode>().is_ok(), "{name} is the page of no code");
    }
}

#[test]
fn exit_codes_are_those_of_the_command_line() {
    let check = |code: ErrorCode, exit: u8| assert_eq!(code.exit_code(), exit, "{code}");
    check(ErrorCode::HandlerError, 1);
    check(ErrorCode::InvalidRequest, 2);
    check(ErrorCode::NotFound, 3);
    check(ErrorCode::Forbidden, 4);
    check(ErrorCode::DeadlineExceeded, 124);
    check(ErrorCode::Busy, 1);
}

#[test]
fn an_error_survives_the_wire() {
    let error = CallError::worker_gone(WorkerId::new(7), Started::Maybe)
        .with_function("orders::validate")
        .with_details(serde_json::json!({"attempt": 2}));
    assert_eq!(CallError::from_wire(error.code.status(), &error.to_json()), error);
    let text = error.to_string();
    assert!(
        text.contains("worker_gone")
            && text.contains("orders::validate")
            && text.contains("may have started")
    );
}

#[test]
fn the_status_outweighs_the_body() {
    let check = |status: u32, body: &[u8], code: ErrorCode| {
        assert_eq!(CallError::from_wire(status, body).code, code);
    };
    check(3, br#"{"code":"busy","message":"x"}"#, ErrorCode::Forbidden);
    check(3, b"\xff\x00", ErrorCode::Forbidden);
    check(999, br#"{"code":"busy"}"#, ErrorCode::Busy);
    check(999, b"", ErrorCode::ProtocolViolation);
}

#[test]
fn the_innermost_function_stays() {
    let error = CallError::cancelled().with_function("inner::f").with_function("outer::g");
    assert_eq!(error.function.as_deref(), Some("inner::f"));
}
