// In the place of iii's OpenTelemetry for Node: a page has none, as iii's own SDK for browsers has none.

export const SeverityNumber = { ERROR: 17 }
export const getLogger = () => undefined
export const getMeter = () => undefined
export const getTracer = () => undefined
export const initOtel = () => {}
export const shutdownOtel = async () => {}
export const registerWorkerGauges = () => {}
export const stopWorkerGauges = () => {}
export const extractContext = () => undefined
export const injectBaggage = () => undefined
export const injectTraceparent = () => undefined
export const recordSpanEvent = () => {}
export const redactAndTruncate = () => ({ json: '', truncated: true })
export const resolveMaxBytesFromEnv = () => 0
export const withSpan = (_name, _options, work) => work()

export class Logger {
  info(...words) { console.info(...words) }
  warn(...words) { console.warn(...words) }
  error(...words) { console.error(...words) }
  debug(...words) { console.debug(...words) }
}
