// A Worker that does nothing but read one value from KV for each request: what a local KV's reads alone
// do to the memory of workerd.
const VALUE = "x".repeat(500);

export default {
  async fetch(request, { KV }) {
    await request.arrayBuffer();
    const { value } = await KV.getWithMetadata("key", { type: "stream" });
    if (value !== null) {
      return new Response(value, { headers: { "cache-status": "encore-kv; hit" } });
    }
    await KV.put("key", VALUE, { metadata: { header: VALUE } });
    return new Response("");
  },
};
