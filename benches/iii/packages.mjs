// The npm packages that are measured, as the tests of iii's SDKs have installed them (`cargo sdks`).

import { createRequire } from 'node:module'

const require = createRequire(new URL('../../tests/iii/node/package.json', import.meta.url))

export const { WebSocket, WebSocketServer } = require('ws')
export const { registerWorker } = require('iii-sdk')
