//! Every number that bounds this layer, in one place, with the relations between them checked at compile
//! time. Encoders and decoders here use them; other layers may be stricter, never looser.

/// The version of the control protocol and of the frame header. It rises when either changes meaning.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest JSON text of one control message, in bytes.
pub const CONTROL_JSON_BYTES_MAX: u32 = 64 << 20;
/// The largest number of file descriptors that ride with one control message.
pub const CONTROL_FDS_MAX: u32 = 8;
/// The bytes before the JSON text of a control message: its length and its number of descriptors.
pub const CONTROL_PREFIX_BYTES: usize = 8;

/// The longest function, trigger or trigger type id, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// The longest worker name or namespace, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// The longest description of a function, worker or trigger type, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 16 << 10;
/// The largest request or response schema or metadata value, in bytes of compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Function indexes of one worker lie below this number; index 0 is reserved for inspection.
/// One permission page of 4096 bytes holds a bit for each.
pub const FUNCTION_INDEX_END: u32 = 16 << 10;
/// Where the engine's worker starts numbering the functions it relays from other zones. They lie above
/// every real function index, since their permission is checked by the engine and not by a page.
pub const RELAY_INDEX_START: u32 = 1 << 20;

/// The bytes of a slot behind the frame header: descriptors, meta and a small body.
pub const INLINE_BYTES: usize = 192;
/// The largest number of attachments of one frame.
pub const ATTACHMENTS_MAX: usize = 255;
/// The size of one attachment descriptor, in bytes.
pub const DESCRIPTOR_BYTES: usize = 32;
/// The largest number of dimensions of a tensor.
pub const TENSOR_DIMS_MAX: usize = 16;

/// The longest `baggage` header read or written, in bytes (W3C Baggage, "Limits").
pub const BAGGAGE_BYTES_MAX: usize = 8192;
/// The largest number of members of a `baggage` header (W3C Baggage, "Limits").
pub const BAGGAGE_MEMBERS_MAX: usize = 64;

/// The largest telemetry record, in bytes: it fits the inline area of one slot.
pub const TELEMETRY_BYTES: usize = INLINE_BYTES;
/// The longest name that rides in a span record, in bytes.
pub const SPAN_NAME_BYTES_MAX: usize = 64;
/// The bytes of a log that ride in one telemetry record.
pub const LOG_CHUNK_BYTES: usize = 184;
/// The largest encoded log that travels through the telemetry ring; longer ones are cut.
pub const LOG_BYTES_MAX: usize = 32 << 10;
/// The largest number of fields of one log.
pub const LOG_FIELDS_MAX: usize = 64;

/// The exit code of the command line for a call that failed in its handler or on the way.
pub const EXIT_ERROR: u8 = 1;
/// The exit code of the command line for a wrong request.
pub const EXIT_USAGE: u8 = 2;
/// The exit code of the command line for a function that does not exist.
pub const EXIT_NOT_FOUND: u8 = 3;
/// The exit code of the command line for a call that was refused.
pub const EXIT_REFUSED: u8 = 4;
/// The exit code of the command line for a deadline that passed (as `timeout(1)`).
pub const EXIT_TIMEOUT: u8 = 124;

const _: () = assert!(FUNCTION_INDEX_END / 8 < 4096, "a permission page must hold a bit for every index");
const _: () = assert!(FUNCTION_INDEX_END < RELAY_INDEX_START);
const _: () = assert!(TELEMETRY_BYTES <= INLINE_BYTES);
const _: () = assert!(LOG_CHUNK_BYTES + 8 == TELEMETRY_BYTES, "a chunk header has 8 bytes");
const _: () = assert!(LOG_BYTES_MAX / LOG_CHUNK_BYTES < u16::MAX as usize, "chunks are counted in u16");
const _: () = assert!(LOG_BYTES_MAX < CONTROL_JSON_BYTES_MAX as usize);
const _: () = assert!(SPAN_NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(ID_BYTES_MAX < BAGGAGE_BYTES_MAX);
