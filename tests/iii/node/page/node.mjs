// The parts of `node:fs`, `module`, `os`, `path` and `url` that iii-sdk and the actor use, for a page: no files but one.

export const readFileSync = () => SDK_PACKAGE
export const existsSync = () => false
export const createRequire = () => () => JSON.parse(SDK_PACKAGE)
export const platform = () => 'browser'
export const release = () => ''
export const arch = () => ''
export const hostname = () => location.host
export const basename = (path) => path.split('/').at(-1)
export const join = (...parts) => parts.join('/')
export const fileURLToPath = (url) => new URL(url).pathname
