// The server's HTTP interface. Every failure becomes an ApiError with the server's own message and hint.

export class ApiError extends Error {
  constructor(status, { code, message, hint }, retryAfterS = 0) {
    super(message);
    Object.assign(this, { status, code, hint, retryAfterS });
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(0, { code: "unreachable", message: "The server does not answer.", hint: "Is it still running? Start it with: make serve" });
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const body = await response.json().catch(() => null);
  const error = body?.error ?? { code: "unknown", message: `The server answered ${response.status}.`, hint: "Its log says why." };
  throw new ApiError(response.status, error, Number(response.headers.get("Retry-After") ?? 0));
}

const bearer = (token) => ({ Authorization: `Bearer ${token}` });
const asJson = (body, headers = {}) => ({ method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });

function asForm(file, headers = {}) {
  const form = new FormData();
  form.append("file", file);
  return { method: "POST", headers, body: form };
}

export const ready = async () => (await fetch("/readyz").catch(() => null))?.ok ?? false;
export const portraits = async () => (await request("/v1/portraits")).portraits;
export const uploadPortrait = (file) => request("/v1/portraits", asForm(file));
export const createSession = (portrait, mode) => request("/v1/sessions", asJson({ portrait, mode }));
export const sendOffer = ({ session_id, token }, { sdp, type }) => request(`/v1/sessions/${session_id}/offer`, asJson({ sdp, type }, bearer(token)));
export const interrupt = ({ session_id, token }) => request(`/v1/sessions/${session_id}/interrupt`, { method: "POST", headers: bearer(token) });
export const speak = ({ session_id, token }, file) => request(`/v1/sessions/${session_id}/speak`, asForm(file, bearer(token)));

// `keepalive` lets the request outlive the page, so that a closed tab frees its place at once.
export const endSession = ({ session_id, token }) =>
  fetch(`/v1/sessions/${session_id}`, { method: "DELETE", headers: bearer(token), keepalive: true }).catch(() => {});

export function eventSocket({ events_url, token }) {
  const url = new URL(`${events_url}?token=${encodeURIComponent(token)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url);
}
