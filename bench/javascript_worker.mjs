// The yardstick of bench/edge.py: what a hand-written JavaScript Worker would do for a hit. The same
// work as worker/edge.py: check the API key, parse the POST, canonical key with HMAC, one KV read,
// freshness, the stored bytes with the same headers. A miss asks the same origin, only to fill KV.
const ENDPOINT = "/v1/chat/completions";
const UNKEYED = new Set(["stream", "stream_options", "user", "metadata", "store", "service_tier"]);
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const hmacKeys = new Map();

function bytesOf(hex) {
  return Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
}

async function hmac(hexKey, data) {
  if (!hmacKeys.has(hexKey)) {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    hmacKeys.set(hexKey, await crypto.subtle.importKey("raw", bytesOf(hexKey), algorithm, false, ["sign"]));
  }
  return new Uint8Array(await crypto.subtle.sign("HMAC", hmacKeys.get(hexKey), data));
}

function base32(bytes) {
  let bits = "";
  for (const byte of bytes) bits += byte.toString(2).padStart(8, "0");
  return bits.match(/.{5}/g).map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five, 2)]).join("");
}

async function tenantOf(env, authorization) {
  const key = (authorization ?? "").replace(/^Bearer /, "");
  const at = key.lastIndexOf("-");
  const check = base32((await hmac(env.API_KEY, encoder.encode(key.slice(0, at)))).subarray(0, 15));
  if (check !== key.slice(at + 1)) return null;
  return /^sk-encore-(.+)-[a-z2-7]+$/.exec(key.slice(0, at))?.[1] ?? null;
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((name) => [name, sorted(value[name])]));
}

export default {
  async fetch(request, env, ctx) {
    const tenant = await tenantOf(env, request.headers.get("authorization"));
    if (tenant === null) return new Response("unknown key", { status: 401 });
    const body = await request.text();
    const fields = JSON.parse(body);
    const kept = Object.fromEntries(
      Object.entries(fields).filter(([name, value]) => value !== null && !UNKEYED.has(name)),
    );
    const form = JSON.stringify(["js", tenant, "", ENDPOINT, 0, sorted(kept)]);
    const digest = await hmac(env.CACHE_KEY, encoder.encode(form));
    const key = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const name = `e:${tenant}:${key}`;
    const began = Date.now();
    const found = await env.KV.getWithMetadata(name, { type: "arrayBuffer", cacheTtl: 60 });
    const header = found.metadata;
    const now = Date.now();
    if (found.value !== null && now <= header.f) {
      const wanted = fields.stream ? "sse" : "json";
      let offset = 0;
      for (const [segment, length] of header.seg) {
        if (segment === wanted) {
          return new Response(new Uint8Array(found.value, offset, length), {
            encodeBody: "manual",
            headers: {
              "age": String(Math.floor((now - header.c) / 1000)),
              "cache-control": "private, no-store",
              "cache-status": `encore-edge; hit; ttl=${Math.floor((header.f - now) / 1000)}`,
              "content-encoding": "gzip",
              "content-type": fields.stream ? "text/event-stream; charset=utf-8" : "application/json",
              "encore-key": key.slice(0, 16),
              "etag": `W/"${header.h}"`,
              "server-timing": `kv;dur=${now - began}`,
            },
          });
        }
        offset += length;
      }
    }
    const answer = await fetch(env.ORIGIN_URL + ENDPOINT, {
      method: "POST",
      headers: {
        "accept": "application/vnd.encore.entry",
        "authorization": request.headers.get("authorization"),
        "content-type": "application/json",
        "encore-edge-authorization": `Bearer ${env.BEARER}`,
      },
      body,
    });
    const entry = await answer.arrayBuffer();
    const start = 12 + new DataView(entry).getUint32(8);
    const metadata = JSON.parse(decoder.decode(entry.slice(12, start)));
    await env.KV.put(name, entry.slice(start), { expiration: Math.ceil(metadata.e / 1000), metadata });
    return new Response("filled");
  },
};
