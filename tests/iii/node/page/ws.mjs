// The browser's WebSocket as npm's `ws` has it, as far as iii-sdk and the actor use that. It must not know what is sent.

export class WebSocket {
  static CONNECTING = 0
  static OPEN = 1
  static CLOSING = 2
  static CLOSED = 3

  #socket
  #heard = new Map()
  // What came while whoever listens had paused.
  #held
  binaryType

  constructor(url) {
    this.#socket = new globalThis.WebSocket(url)
    this.#socket.binaryType = 'arraybuffer'
    this.#socket.onopen = () => this.#tell('open')
    this.#socket.onerror = () => this.#tell('error', new Error(`${url} is not reached`))
    this.#socket.onclose = ({ code, reason }) => this.#came(['close', code, Buffer.from(reason)])
    this.#socket.onmessage = ({ data }) =>
      this.#came(['message', typeof data === 'string' ? data : Buffer.from(data), typeof data !== 'string'])
  }

  get readyState() {
    return this.#socket.readyState
  }

  on(event, listener) {
    this.#heard.set(event, [...(this.#heard.get(event) ?? []), listener])
    return this
  }

  once(event, listener) {
    const once = (...words) => {
      this.#heard.set(event, this.#heard.get(event).filter((other) => other !== once))
      listener(...words)
    }
    return this.on(event, once)
  }

  removeAllListeners() {
    this.#heard.clear()
  }

  send(data, done = () => {}) {
    this.#socket.send(data)
    queueMicrotask(done)
  }

  // Browsers ask and answer by themselves, unseen.
  ping() {
    queueMicrotask(() => this.#tell('pong'))
  }

  // `ws` sends what waits before it closes; so do browsers.
  close(code, reason) {
    this.#socket.close(code, reason)
  }

  terminate() {
    this.#socket.close()
  }

  pause() {
    this.#held ??= []
  }

  resume() {
    const held = this.#held ?? []
    this.#held = undefined
    held.forEach((event) => this.#came(event))
  }

  #came(event) {
    if (this.#held) this.#held.push(event)
    else this.#tell(...event)
  }

  #tell(event, ...words) {
    this.#heard.get(event)?.forEach((listener) => listener(...words))
  }
}
