// The certified OpenID provider `oidc-provider`, with one client. Any login and password are accepted.
// CONFIG: JSON with port, client, and `claims` about every user. Prints a line when it listens.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const config = JSON.parse(process.env.CONFIG);
const require = createRequire(join(process.env.PACKAGES, "package.json"));
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const issuer = `http://127.0.0.1:${config.port}`;
const provider = new Provider(issuer, {
  clients: [config.client],
  clientAuthMethods: [config.client.token_endpoint_auth_method],
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.org`, preferred_username: id, ...config.claims }),
  }),
  claims: { email: ["email", "email_verified"], profile: ["preferred_username"], openid: ["sub"] },
  features: { devInteractions: { enabled: true } },
});
createServer(provider.callback()).listen(config.port, "127.0.0.1", () => console.log("ready"));
