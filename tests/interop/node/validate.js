// Validates the resources on standard input (a JSON object, name -> resource) by the definitions of R4 and prints the
// errors of each that has some as a JSON object, name -> ["where: what", ...]. Usage: node validate.js
const { Fhir } = require("fhir");

let input = "";
process.stdin.on("data", (chunk) => (input += chunk));
process.stdin.on("end", () => {
  const fhir = new Fhir();
  const found = {};
  for (const [name, resource] of Object.entries(JSON.parse(input))) {
    const { messages } = fhir.validate(resource, { errorOnUnexpected: true });
    const errors = messages.filter((each) => each.severity === "error" || each.severity === "fatal");
    if (errors.length > 0) found[name] = errors.map((each) => `${each.location}: ${each.message}`);
  }
  process.stdout.write(JSON.stringify(found));
});
