// An EHR's day with the FHIR client fhir-kit-client. Reads {url, patient, order, clientId?, keyId?, key?} (JSON) from standard
// input and prints what it saw as JSON; with a key (PEM, P-384) it signs in by SMART Backend Services first.
// Usage: node fhir_client.mjs
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { Client } from "fhir-kit-client";

const read = async () => {
  let input = "";
  for await (const chunk of process.stdin) input += chunk;
  return JSON.parse(input);
};

const refused = async (asked) => {
  try {
    await asked;
    return "nothing was refused";
  } catch (error) {
    if (!error.response) throw error;
    return { status: error.response.status, issue: error.response.data.issue[0].code };
  }
};

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

const token = async (client, { clientId, keyId, key }) => {
  const { tokenUrl } = await client.smartAuthMetadata();
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: clientId, sub: clientId, aud: tokenUrl.href, jti: randomUUID(), iat: now, exp: now + 240 };
  const said = `${part({ alg: "ES384", kid: keyId, typ: "JWT" })}.${part(claims)}`;
  const signed = sign("sha384", Buffer.from(said), { key: createPrivateKey(key), dsaEncoding: "ieee-p1363" });
  const answer = await fetch(tokenUrl, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "client_credentials",
      scope: "system/*.cruds",
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      client_assertion: `${said}.${signed.toString("base64url")}`,
    }),
  });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()).access_token;
};

const asked = await read();
const client = new Client({ baseUrl: asked.url });
const seen = {};
if (asked.key) {
  seen.stranger = await refused(client.search({ resourceType: "Patient" }));
  client.bearerToken = await token(client, asked);
}
const capabilities = await client.capabilityStatement();
seen.served = capabilities.rest[0].resource.map((each) => each.type);
seen.release = capabilities.fhirVersion;
const made = await client.transaction({ body: asked.order });
seen.made = made.entry.map((each) => each.response.status);
const { id } = asked.patient;
const changed = { ...asked.patient, active: true };
const updated = await client.update({ resourceType: "Patient", id, body: changed });
seen.version = updated.meta.versionId;
seen.stale = await refused(
  client.update({ resourceType: "Patient", id, body: changed, options: { headers: { "If-Match": 'W/"1"' } } }),
);
const patched = await client.patch({
  resourceType: "Patient",
  id,
  jsonPatch: [{ op: "replace", path: "/active", value: false }],
});
seen.active = patched.active;
const identifier = `${changed.identifier[0].system}|${changed.identifier[0].value}`;
const { id: _, ...unnamed } = changed;
seen.again = (await client.update({ resourceType: "Patient", searchParams: { identifier }, body: unnamed })).id;
const [, order] = asked.order.entry;
seen.subject = (await client.resolve({ reference: order.resource.subject.reference })).id;
for (const city of ["Aachen", "Bern", "Chur"]) {
  await client.create({ resourceType: "Location", body: { resourceType: "Location", name: city } });
}
let page = await client.search({ resourceType: "Location", searchParams: { _count: 2, _sort: "_lastUpdated" } });
seen.pages = [];
while (page) {
  seen.pages.push((page.entry ?? []).map((each) => each.resource.name));
  page = await client.nextPage({ bundle: page });
}
const batch = { resourceType: "Bundle", type: "batch", entry: [] };
batch.entry.push({ request: { method: "GET", url: `Patient/${id}` } }, { request: { method: "GET", url: "Patient/0" } });
seen.batch = (await client.batch({ body: batch })).entry.map((each) => each.response.status.slice(0, 3));
const posted = { postSearch: true };
const found = await client.search({ resourceType: "Patient", searchParams: { identifier }, options: posted });
seen.posted = found.entry.map((each) => each.resource.id);
const body = { resourceType: "Location", name: "gone" };
const gone = await client.create({ resourceType: "Location", body });
await client.delete({ resourceType: "Location", id: gone.id });
seen.gone = await refused(client.read({ resourceType: "Location", id: gone.id }));
seen.invalid = await refused(
  client.create({ resourceType: "Patient", body: { resourceType: "Patient", gender: "unheard-of" } }),
);
process.stdout.write(JSON.stringify(seen));
