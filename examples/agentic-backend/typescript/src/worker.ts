// What both TypeScript workers have in common: a connection to the engine, a call with types, an orderly end. It must not
// know what the workers do.

import { registerWorker } from 'iii-sdk'

/** Connects to the engine as iii's published SDK does; nothing in here knows that it is Ringway. */
export function connect(name: string) {
  const iii = registerWorker(process.env.III_URL ?? 'ws://127.0.0.1:49134', { workerName: name, otel: { serviceName: name } })
  // Whoever started us holds our standard input; when that ends, so do we.
  process.stdin.resume().on('end', () => void iii.shutdown().then(() => process.exit(0)))
  return {
    iii,
    /** Calls a function of whatever worker, in whatever language. */
    call: <Answer>(function_id: string, payload: object) => iii.trigger<object, Answer>({ function_id, payload }),
  }
}

/** What `web::scrape` answers. */
export interface Page {
  url: string
  title: string
  paragraphs: string[]
}
