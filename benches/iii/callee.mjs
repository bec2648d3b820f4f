// The callees: `bare URL` sends every message back, `sdk URL` serves the function `bench::echo`.

import { registerWorker, WebSocket } from './packages.mjs'

const [kind, url] = process.argv.slice(2)
if (kind === 'bare') {
  const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 2 ** 27 })
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  socket.on('open', () => console.log('ready'))
} else {
  const iii = registerWorker(url, { workerName: 'bench-callee' })
  iii.registerFunction('bench::echo', async ({ text }) => ({ text }))
  console.log('ready')
}
process.stdin.on('end', () => process.exit(0)).resume()
