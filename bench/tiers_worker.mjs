// Works for bench/tiers.py: reads and writes KV as worker/kv.py does, and times each operation. A
// Worker's clock moves with its I/O alone, which is what is timed here.
//
//   POST /read|write|visible?size=BYTES&count=N&at_once=N    answers {"ms": [of each operation]}
const LIFE_S = 3600;

const name = (size, number) => `e:bench:${size}:${number}`;

function value(size, salt) {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i += 65536) crypto.getRandomValues(bytes.subarray(i, i + 65536));
  bytes[0] = salt;
  return bytes;
}

const get = (env, key) => env.KV.getWithMetadata(key, { type: "arrayBuffer", cacheTtl: 60 });
const put = (env, key, bytes) =>
  env.KV.put(key, bytes, { expirationTtl: LIFE_S, metadata: { v: 1, salt: bytes[0] } });

async function timed(operation) {
  const began = performance.now();
  await operation();
  return performance.now() - began;
}

// From the start of a write until somebody else reads what it wrote.
async function visible(env, size, number) {
  const key = name(size, number);
  const salt = ((await get(env, key)).metadata?.salt ?? 0) === 1 ? 2 : 1;
  const bytes = value(size, salt);
  const began = performance.now();
  const written = put(env, key, bytes);
  while ((await get(env, key)).metadata?.salt !== salt);
  const took = performance.now() - began;
  await written;
  return took;
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const [size, count, atOnce] = ["size", "count", "at_once"].map((n) => Number(url.searchParams.get(n)));
    const bytes = value(size, 1);
    const operation = {
      "/read": (n) => timed(() => get(env, name(size, n % 16))),
      "/write": (n) => timed(() => put(env, name(size, n % 16), bytes)),
      "/visible": (n) => visible(env, size, n % 16),
    }[url.pathname];
    const ms = [];
    let next = 0;
    const work = async () => {
      while (next < count) ms.push(await operation(next++));
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    return Response.json({ ms });
  },
};
