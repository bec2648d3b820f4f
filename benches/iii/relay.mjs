// The floor's middle: hands each message of the caller to the callee and back, unread, by the library that the SDK uses.

import { WebSocketServer } from './packages.mjs'

const ends = {}
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, maxPayload: 2 ** 27 })
server.on('connection', (socket, { url }) => {
  const [own, other] = url === '/caller' ? ['caller', 'callee'] : ['callee', 'caller']
  ends[own] = socket
  socket.on('message', (data, isBinary) => ends[other]?.send(data, { binary: isBinary }))
})
server.on('listening', () => console.log(`listening ${server.address().port}`))
process.stdin.on('end', () => process.exit(0)).resume()
