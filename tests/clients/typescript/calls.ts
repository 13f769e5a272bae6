// What somebody does with the schema's types and openapi-fetch: create, list, generate. Arguments: address, key.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./engarde.js";

const [address, key] = process.argv.slice(2);
assert(address && key);
const client = createClient<paths>({ baseUrl: address, headers: { Authorization: `Bearer ${key}` } });

const made = await client.POST("/api/content", {
  body: { title: "From a browser", type: "post", body: "Text", tags: ["b"] },
});
assert(made.data, JSON.stringify(made.error));
assert.equal(made.data.title, "From a browser");
assert.equal(made.data.version, 1);

const page = await client.GET("/api/content", {
  params: { query: { content_type: "post", tags: ["b"], pageSize: 5 } },
});
assert(page.data, JSON.stringify(page.error));
assert.deepEqual(
  page.data.data.map((item) => item.id),
  [made.data.id],
);
assert.equal(page.data.pagination.total, 1);

const written = await client.POST("/api/content/generate", {
  body: { provider: "local", content_type: "post", prompt: "About cats", variants: 1, save: true },
});
assert(written.data, JSON.stringify(written.error));
assert(written.data.variants[0]?.body);
assert.equal(written.data.content_ids.length, 1);

const refused = await client.POST("/api/content", { body: { title: "", type: "post" } });
assert(refused.error);
assert.equal(refused.error.status, 400);
assert.equal(refused.error.code, "validation_error");
