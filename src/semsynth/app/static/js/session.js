// A session survives a reload: IndexedDB of the browser, one entry for each tab. Without it (a frame
// that may store nothing) the page works as well, until it is closed.

const NAME = "semsynth-studio";
const STORE = "sessions";
const KEY = "semsynth session";
const KEPT = 20;

const settled = (request) => new Promise((done, fail) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => fail(request.error);
});

async function open() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return settled(request);
}

/** Hold the session for this tab; false where another tab has it. */
async function hold(id) {
  if (!navigator.locks) return true;
  return new Promise((done) => {
    navigator.locks.request(`${NAME} ${id}`, { ifAvailable: true }, (lock) => {
      done(lock !== null);
      return lock ? new Promise(() => {}) : undefined; // until the page goes
    });
  });
}

/** As `hold`, but wait a moment: on a reload the page before may not have gone yet. */
async function holdOwn(id) {
  for (let i = 0; i < 6; i++) {
    if (await hold(id)) return true;
    await new Promise((done) => setTimeout(done, 120));
  }
  return false;
}

const newId = () => `${Date.now().toString(36)}${Math.floor(Math.random() * 1e9).toString(36)}`;

export class Session {
  /** This tab's session: the one it had before a reload, else the last one that no tab has open. */
  static async start() {
    const session = new Session();
    try {
      session.database = await open();
      const own = sessionStorage.getItem(KEY);
      if (own && (await holdOwn(own))) session.id = own;
      else if (navigator.locks) session.id = await session.#last();
    } catch {
      session.database = null;
    }
    if (!session.id) {
      session.id = newId();
      await hold(session.id);
    }
    try {
      sessionStorage.setItem(KEY, session.id);
    } catch {
      // no storage: this page only
    }
    return session;
  }

  #store(mode) {
    return this.database.transaction(STORE, mode).objectStore(STORE);
  }

  async #last() {
    const keys = await settled(this.#store("readonly").getAllKeys());
    const ids = [...new Set(keys.map((key) => key.split("/")[0]))];
    const times = await Promise.all(ids.map((id) => settled(this.#store("readonly").get(`${id}/time`))));
    const order = ids.map((id, i) => [times[i] ?? 0, id]).sort((a, b) => b[0] - a[0]).map(([, id]) => id);
    for (const old of order.slice(KEPT)) {
      this.#store("readwrite").delete(IDBKeyRange.bound(`${old}/`, `${old}/\uffff`));
    }
    return order.length && (await hold(order[0])) ? order[0] : null;
  }

  async load(part) {
    if (!this.database) return null;
    try {
      return (await settled(this.#store("readonly").get(`${this.id}/${part}`))) ?? null;
    } catch {
      return null;
    }
  }

  /** Store a part; returns whether it is stored. */
  async save(part, value) {
    if (!this.database) return false;
    try {
      const store = this.#store("readwrite");
      store.put(Date.now(), `${this.id}/time`);
      await settled(store.put(value, `${this.id}/${part}`));
      return true;
    } catch {
      return false; // full or refused: the page itself still has it
    }
  }
}
