// Puts the actor into a page: bundles ../actor.mjs, as it is, with npm's iii-sdk, as it is, for browsers. What only Node has is
// replaced: `ws` by the browser's own WebSocket, streams by npm's `readable-stream`, the rest by a few lines. It must not know
// what the actor does. Usage: node build.mjs FOLDER

import { build } from 'esbuild'
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const { version } = JSON.parse(readFileSync(here('../node_modules/iii-sdk/package.json'), 'utf8'))
const folder = resolve(process.argv[2])
const node = here('node.mjs')

await build({
  absWorkingDir: here('..'),
  entryPoints: [here('../actor.mjs')],
  outfile: `${folder}/actor.js`,
  bundle: true,
  format: 'esm',
  platform: 'browser',
  logLevel: 'warning',
  inject: [here('globals.mjs')],
  alias: {
    ws: here('ws.mjs'),
    '@iii-dev/helpers/observability': here('observability.mjs'),
    '@iii-dev/helpers/observability/internal': here('observability.mjs'),
    'node:stream': 'readable-stream',
    'node:timers/promises': here('timers.mjs'),
    'node:fs': node,
    'node:module': node,
    'node:os': node,
    'node:path': node,
    'node:url': node,
  },
  define: { SDK_PACKAGE: JSON.stringify(JSON.stringify({ version })), 'import.meta.resolve': 'resolvePackage' },
})
mkdirSync(folder, { recursive: true })
copyFileSync(here('index.html'), `${folder}/index.html`)
