// A call from npm's iii-sdk to npm's iii-sdk through the engine, beside bare WebSocket messages of the same library through
// a relay that reads nothing: one at a time and 64 at once, in turns within one run. Then whether large payloads pass.
//
// node bench.mjs RINGWAY [--quick] [--json] [--threads=N]

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { registerWorker, WebSocket } from './packages.mjs'

const [ringway, ...options] = process.argv.slice(2)
if (!ringway) {
  console.error('usage: node bench.mjs RINGWAY [--quick] [--json] [--threads=N]')
  process.exit(2)
}
const quick = options.includes('--quick')
// Of the engine's listener; 0 for as many as it has where nothing is said.
const threads = options.find((option) => option.startsWith('--threads='))?.slice('--threads='.length) ?? 0
// The SDK makes spans unless it is told not to, which costs more than the call; bare messages have none.
process.env.OTEL_ENABLED ??= 'false'

const ROUNDS = quick ? 2 : 5
const CALLS = quick ? 300 : 3000
const FLIGHT_MS = quick ? 300 : 2000
const IN_FLIGHT = 64
const TEXT = 'x'.repeat(64)

const here = dirname(fileURLToPath(import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'ringway-bench-iii-'))
const children = []

/** Starts a program and waits for a line that begins with a word, if one is wanted; its process and the rest of that line. */
const start = async (program, words, wanted) => {
  const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  const lines = createInterface({ input: child.stdout })
  if (!wanted) return { pid: child.pid }
  for await (const line of lines) {
    if (line.startsWith(wanted)) {
      child.stdout.resume()
      return { pid: child.pid, told: line.slice(wanted.length).trim() }
    }
  }
  throw new Error(`${program} ${words.join(' ')} ended before it said ${wanted}`)
}

const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer().on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

/** The floor: messages of as many bytes as a call has, there and back over the relay. */
const bare = async () => {
  const { pid: between, told: port } = await start(process.execPath, [join(here, 'relay.mjs')], 'listening')
  const callee = await start(process.execPath, [join(here, 'callee.mjs'), 'bare', `ws://127.0.0.1:${port}/callee`], 'ready')
  const socket = new WebSocket(`ws://127.0.0.1:${port}/caller`, { perMessageDeflate: false, maxPayload: 2 ** 27 })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  const waiting = []
  socket.on('message', () => waiting.shift()())
  const call = (text) =>
    new Promise((resolve) => {
      const message = { type: 'invokefunction', invocation_id: crypto.randomUUID(), function_id: 'bench::echo', data: { text } }
      waiting.push(resolve)
      socket.send(JSON.stringify(message))
    })
  return { call, clients: [process.pid, callee.pid], between, close: () => socket.close() }
}

/** What is measured: the SDK's own call, through the engine. */
const routed = async () => {
  const port = await freePort()
  const settings = join(folder, 'ringway.yaml')
  writeFileSync(settings, `workers:\n  iii: { port: ${port}, threads: ${threads} }\n`)
  const address = `@ringway-bench-iii-${process.pid}`
  const { pid: between } = await start(ringway, ['--address', address, 'up', '--no-otlp', '--config', settings, '--data', join(folder, 'data')])
  const url = `ws://127.0.0.1:${port}`
  const callee = await start(process.execPath, [join(here, 'callee.mjs'), 'sdk', url], 'ready')
  const iii = registerWorker(url, { workerName: 'bench-caller', reconnectionConfig: { initialDelayMs: 100 } })
  const call = (text) => iii.trigger({ function_id: 'bench::echo', payload: { text } })
  for (let attempt = 0; ; attempt += 1) {
    try {
      await call('')
      break
    } catch (error) {
      if (attempt > 300) throw error
      await sleep(100)
    }
  }
  return { call, clients: [process.pid, callee.pid], between, close: () => iii.shutdown() }
}

const oneByOne = async (call, times) => {
  for (let i = 0; i < CALLS; i += 1) {
    const began = process.hrtime.bigint()
    await call(TEXT)
    times.push(Number(process.hrtime.bigint() - began) / 1000)
  }
}

/** Processor time that a process has used, in µs; the kernel counts it in hundredths of a second. */
const used = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

const atOnce = async ({ call, clients, between }, cost) => {
  const usage = () => [clients.map(used).reduce((sum, one) => sum + one), used(between)]
  const [began, before] = [performance.now(), usage()]
  let count = 0
  const line = async () => {
    while (performance.now() - began < FLIGHT_MS) {
      await call(TEXT)
      count += 1
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, line))
  const after = usage()
  cost.calls += count
  cost.clients += after[0] - before[0]
  cost.between += after[1] - before[1]
  return (count * 1000) / (performance.now() - began)
}

const percentile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]
const median = (values) => percentile([...values].sort((a, b) => a - b), 0.5)
const micros = (value) => value.toFixed(0).padStart(7)

const main = async () => {
  const sides = { bare: await bare(), routed: await routed() }
  const times = { bare: [], routed: [] }
  const rates = { bare: [], routed: [] }
  const costs = { bare: { calls: 0, clients: 0, between: 0 }, routed: { calls: 0, clients: 0, between: 0 } }
  for (const side of Object.values(sides)) await oneByOne(side.call, [])
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, side] of Object.entries(sides)) {
      await oneByOne(side.call, times[name])
      rates[name].push(await atOnce(side, costs[name]))
    }
  }
  const result = { cores: cpus().length, node: process.version, payload_bytes: TEXT.length, in_flight: IN_FLIGHT }
  for (const name of ['bare', 'routed']) {
    const sorted = times[name].sort((a, b) => a - b)
    const parts = { p50: 0.5, p90: 0.9, p99: 0.99, p999: 0.999 }
    const us = Object.fromEntries(Object.entries(parts).map(([key, part]) => [key, percentile(sorted, part)]))
    const { calls, clients, between } = costs[name]
    const processor_us = { clients: clients / calls, between: between / calls }
    result[name] = { us: { ...us, max: sorted.at(-1) }, per_second: median(rates[name]), processor_us }
  }
  // What the SDK's two processes take of every call leaves this rate, if what is between them took nothing.
  result.bound_per_second = (Math.min(result.cores, 2) * 1e6) / result.routed.processor_us.clients
  result.p50_times_bare = result.routed.us.p50 / result.bare.us.p50
  result.rate_of_bare = result.routed.per_second / result.bare.per_second
  result.large_ms = {}
  for (const mebibytes of [1, 16]) {
    // A little less, so that the message with what is around it has that size.
    const text = 'm'.repeat(mebibytes * 2 ** 20 - 4096)
    const took = {}
    for (const [name, side] of Object.entries(sides)) {
      const all = []
      for (let i = 0; i < (quick ? 2 : 8); i += 1) {
        const began = performance.now()
        const answer = await side.call(text)
        if (name === 'routed' && answer.text !== text) throw new Error(`${mebibytes} MiB came back changed`)
        all.push(performance.now() - began)
      }
      took[name] = median(all)
    }
    result.large_ms[`${mebibytes} MiB`] = took
  }
  report(result)
  for (const side of Object.values(sides)) await side.close()
  return result
}

const report = (result) => {
  if (options.includes('--json')) {
    console.log(JSON.stringify(result, null, 2))
    return
  }
  console.log(`npm iii-sdk to npm iii-sdk, ${result.payload_bytes} bytes, ${result.cores} cores, node ${result.node}`)
  console.log(`${''.padEnd(34)}    p50     p90     p99   p99.9     max  µs    64 in flight   processor µs: clients, between`)
  for (const [name, title] of [['bare', 'floor: bare ws over a bare relay'], ['routed', 'iii-sdk over the engine']]) {
    const { us, per_second: rate, processor_us: cost } = result[name]
    const row = [us.p50, us.p90, us.p99, us.p999, us.max].map(micros).join(' ')
    const processor = `${cost.clients.toFixed(1).padStart(18)}${cost.between.toFixed(1).padStart(10)}`
    console.log(`${title.padEnd(34)}${row}      ${rate.toFixed(0).padStart(8)}/s${processor}`)
  }
  const { p50_times_bare: times, rate_of_bare: part } = result
  console.log(`p50: ${times.toFixed(2)} of the floor (wanted: at most 1.5)`)
  console.log(`64 in flight: ${(part * 100).toFixed(0)} % of the floor (wanted: at least 70 %)`)
  const bound = result.bound_per_second
  const [bounds, share] = [bound.toFixed(0), ((bound / result.bare.per_second) * 100).toFixed(0)]
  console.log(`over an engine that took no time the SDK would reach at most ${bounds}/s here, ${share} % of the floor`)
  for (const [size, took] of Object.entries(result.large_ms)) {
    console.log(`${size}: passes there and back, ${took.routed.toFixed(0)} ms; floor ${took.bare.toFixed(0)} ms`)
  }
}

let code = 0
try {
  await main()
} catch (error) {
  console.error(error)
  code = 1
}
for (const child of children) child.kill('SIGKILL')
rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
process.exit(code)
