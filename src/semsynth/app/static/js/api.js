// The server: requests with the token, and its refusals as errors of one line.

const KEY = "semsynth token";

/** An answer that is none: `status` is HTTP's, 0 where the server cannot be reached. */
export class Refused extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

/** Whether an error means only that something newer took its place. */
export const superseded = (error) => error.name === "AbortError" || error.status === 409;

/** Take the token out of the address bar, where it would be seen and copied. */
function takeToken() {
  const address = new URL(location.href);
  const given = address.searchParams.get("token");
  try {
    if (!given) return sessionStorage.getItem(KEY) ?? "";
    sessionStorage.setItem(KEY, given);
  } catch {
    return given ?? ""; // a frame without storage: the address keeps it, so that a reload works
  }
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
  return given;
}

export class Api {
  constructor() {
    this.base = new URL(".", location.href);
    this.token = takeToken();
  }

  /** The address of a path; with the token in it, for images and downloads, which have no headers. */
  url(path, parameters = {}, withToken = false) {
    const url = new URL(path, this.base);
    for (const [key, value] of Object.entries(parameters)) {
      if (value !== null && value !== undefined && value !== "") url.searchParams.set(key, value);
    }
    if (withToken && this.token) url.searchParams.set("token", this.token);
    return url.href;
  }

  async #fetch(path, { parameters, body, signal } = {}) {
    let answer;
    const headers = this.token ? { "X-Semsynth-Token": this.token } : {};
    const method = body === undefined ? "GET" : "POST";
    if (body !== undefined && !(body instanceof FormData)) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(body);
    }
    try {
      answer = await fetch(this.url(path, parameters), { method, headers, body, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The server does not answer. Is semsynth app still running? Your mask is kept.");
    }
    if (answer.ok) return answer;
    throw new Refused(answer.status, await refusal(answer));
  }

  async json(path, options) {
    return (await this.#fetch(path, options)).json();
  }

  async text(path, options) {
    return (await this.#fetch(path, options)).text();
  }

  async blob(path, options) {
    return (await this.#fetch(path, options)).blob();
  }

  async #withMask(path, request, mask) {
    const body = new FormData();
    body.append("request", JSON.stringify(request));
    body.append("mask", new Blob([mask], { type: "image/png" }), "mask.png");
    return this.json(path, { body });
  }

  upload(file) {
    const body = new FormData();
    body.append("file", file);
    return this.json("api/upload", { body });
  }

  evaluate(request, mask) {
    return this.#withMask("api/evaluate", request, mask);
  }

  save(request, mask) {
    return this.#withMask("api/save", request, mask);
  }

  /** One image. `maps`: PNG bytes of the mask, of what is regenerated, and of the objects, or null. */
  async generate(request, maps, signal) {
    const body = new FormData();
    body.append("request", JSON.stringify(request));
    for (const [name, map] of Object.entries(maps)) {
      if (map) body.append(name, new Blob([map], { type: "image/png" }), `${name}.png`);
    }
    const answer = await this.#fetch("api/generate", { body, signal });
    return {
      blob: await answer.blob(),
      result: answer.headers.get("X-Semsynth-Result"),
      seconds: Number(answer.headers.get("X-Semsynth-Seconds") ?? 0),
      note: decodeURIComponent(answer.headers.get("X-Semsynth-Note") ?? ""),
    };
  }
}

async function refusal(answer) {
  if (answer.status === 401) return "This page has no valid token: open the address that semsynth app printed.";
  try {
    const { error } = await answer.json();
    if (error) return error;
  } catch {
    // not JSON: a proxy's own page
  }
  return `The server refused (${answer.status} ${answer.statusText}).`;
}
