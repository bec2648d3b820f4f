// The actor on npm's iii-sdk; what it does stands in ../README.md. It must not know who calls it or why.

import { registerWorker, TriggerAction } from 'iii-sdk'
import { createChannel } from 'iii-sdk/helpers'
import { Logger } from '@iii-dev/helpers/observability'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'

const [url, name] = process.argv.slice(2)
if (!url || !name) {
  console.error('usage: actor.mjs URL NAME')
  process.exit(2)
}

const manifest = new URL('../package.json', import.meta.resolve('iii-sdk'))
const { version } = JSON.parse(readFileSync(fileURLToPath(manifest), 'utf8'))

const iii = registerWorker(url, { workerName: name })
const logger = new Logger()

const notes = []
const triggers = new Map()
const providers = new Map()

/** Registers a function of this actor. */
const serve = (id, handler) => iii.registerFunction(`${name}::${id}`, handler)

/** An object as whoever called has sent it, and who that was. */
const unstamped = (data) => {
  if (data === null || typeof data !== 'object' || Array.isArray(data)) return [data ?? null, null]
  const { _caller_worker_id: caller, ...rest } = data
  return [rest, caller ?? null]
}

const action = (wanted) => {
  if (!wanted) return undefined
  return wanted.type === 'void' ? TriggerAction.Void() : TriggerAction.Enqueue({ queue: wanted.queue })
}

const adler32 = (bytes) => {
  let [a, b] = [1, 0]
  for (const byte of bytes) {
    a = (a + byte) % 65521
    b = (b + a) % 65521
  }
  return b * 65536 + a
}

const pattern = (length) => Buffer.from(Uint8Array.from({ length }, (_, i) => 31 * i + (i >> 8)))

/** Everything that a channel brings until it ends. */
const drain = async (reader) => {
  const texts = []
  reader.onMessage((text) => texts.push(text))
  const bytes = await reader.readAll()
  return { bytes: bytes.length, sum: adler32(bytes), texts }
}

/** Writes texts, then so many bytes, and closes. */
const fill = (writer, length, texts) =>
  new Promise((resolve, reject) => {
    texts.forEach((text) => writer.sendMessage(text))
    writer.stream.on('error', reject)
    writer.stream.end(pattern(length), () => resolve())
  })

serve('identity', async () => ({ name, sdk: `npm ${version}`, pid: process.pid }))

serve('echo', async (input, metadata) => {
  const [data, caller] = unstamped(input)
  return { data, caller, metadata: metadata ?? null }
})

serve('add', async ({ a, b }) => ({ sum: a + b }))

serve('fail', async ({ message }) => {
  throw new Error(message)
})

serve('silent', async () => undefined)

serve('wait', async ({ ms }) => {
  await sleep(ms)
  return { waited: ms }
})

serve('call', async ({ function: function_id, data, metadata, action: wanted, timeout_ms: timeoutMs }) => {
  try {
    const request = { function_id, payload: data, action: action(wanted), timeoutMs, metadata }
    return { ok: (await iii.trigger(request)) ?? null }
  } catch (error) {
    // The SDK puts the code in front of the message.
    const { code = '', message } = error
    return { error: { code, message: message.startsWith(`${code}: `) ? message.slice(code.length + 2) : message } }
  }
})

serve('relay', async ({ path: [next, ...path] }) =>
  next ? [name, ...(await iii.trigger({ function_id: next, payload: { path } }))] : [name])

serve('note', async (input, metadata) => {
  notes.push({ data: unstamped(input)[0], metadata: metadata ?? null })
})

serve('noted', async () => ({ notes }))

serve('log', async ({ level, message }) => logger[level](message, { actor: name }))

serve('bind', async ({ key, type, function: function_id, config, metadata }) => {
  triggers.set(key, iii.registerTrigger({ type, function_id, config, metadata: metadata ?? undefined }))
})

serve('unbind', async ({ key }) => {
  triggers.get(key)?.unregister()
  triggers.delete(key)
})

serve('provide', async ({ type }) => {
  const given = new Map()
  providers.set(type, given)
  iii.registerTriggerType(
    { id: type, description: `fired by ${name}` },
    {
      registerTrigger: async (trigger) => {
        if (trigger.config?.refuse) throw new Error(trigger.config.refuse)
        given.set(trigger.id, trigger)
      },
      unregisterTrigger: async (trigger) => {
        given.delete(trigger.id)
      },
    },
  )
})

serve('bindings', async ({ type }) => ({ bindings: [...(providers.get(type)?.values() ?? [])] }))

serve('fire', async ({ type, data }) => {
  const given = [...(providers.get(type)?.values() ?? [])]
  for (const { function_id, metadata } of given) {
    await iii.trigger({ function_id, payload: data, metadata })
  }
  return { fired: given.length }
})

serve('push', async ({ to, bytes, texts }) => {
  const channel = await createChannel(iii)
  const answer = iii.trigger({ function_id: to, payload: { reader: channel.readerRef } })
  await fill(channel.writer, bytes, texts)
  return answer
})

serve('receive', async ({ reader }) => drain(reader))

serve('pull', async ({ from, bytes, texts }) => {
  const channel = await createChannel(iii)
  const poured = iii.trigger({ function_id: from, payload: { writer: channel.writerRef, bytes, texts } })
  const [came] = await Promise.all([drain(channel.reader), poured])
  return came
})

serve('pour', async ({ writer, bytes, texts }) => {
  await fill(writer, bytes, texts)
  return { poured: bytes }
})

serve('answer', async ({ method, path_params, query_params, body }) => ({
  status_code: 201,
  headers: { 'x-actor': name },
  body: { name, method, path_params, query_params, body },
}))

serve('stream_answer', async ({ response }) => {
  response.sendMessage(JSON.stringify({ type: 'set_status', status_code: 202 }))
  response.sendMessage(JSON.stringify({ type: 'set_headers', headers: { 'x-actor': name } }))
  response.stream.write(Buffer.from('first,'))
  response.stream.end(Buffer.from('second'))
})

serve('body', async ({ request_body: reader }) => {
  const { bytes, sum } = await drain(reader)
  return { status_code: 200, body: { bytes, sum } }
})

serve('fetch', async ({ url, method, headers, body, pattern: length }) => {
  const response = await fetch(url, { method, headers, body: length === undefined ? body : pattern(length) })
  return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() }
})

// A browser's part, which no SDK for workers has: joins a group of a stream, hears what is in it, leaves.
serve('follow', async ({ port, stream_name: streamName, group_id: groupId }) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`)
  const subscription = { subscriptionId: crypto.randomUUID(), streamName, groupId }
  try {
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    const heard = new Promise((resolve) => socket.once('message', (text) => resolve(JSON.parse(text))))
    socket.send(JSON.stringify({ type: 'join', data: subscription }))
    const event = await heard
    socket.send(JSON.stringify({ type: 'leave', data: subscription }))
    return event
  } finally {
    socket.close()
  }
})

process.stdin.on('end', async () => {
  await iii.shutdown()
  process.exit(0)
})
process.stdin.resume()
