import { credentials } from "@grpc/grpc-js";
import type { ChannelCredentials, ChannelOptions } from "@grpc/grpc-js";

/** How the gateway is known, and who we are. All are PEM. */
export interface TlsOptions {
  /** Authorities that the gateway's certificate comes from. Default: those that Node trusts. */
  ca?: Buffer | undefined;
  /** Our certificate chain, where the gateway asks for one. Goes with `key`. */
  certificate?: Buffer | undefined;
  /** Key of `certificate`. */
  key?: Buffer | undefined;
  /** Name in the gateway's certificate. Default: the host of the address. */
  serverName?: string | undefined;
}

/** Credentials of a channel. */
export function channelCredentials(tls: TlsOptions | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  return credentials.createSsl(tls.ca, tls.key, tls.certificate);
}

/** Options of a channel whose gateway's certificate bears another name than its address. */
export function channelNames(tls: TlsOptions | undefined): ChannelOptions {
  if (tls?.serverName === undefined) return {};
  return { "grpc.ssl_target_name_override": tls.serverName, "grpc.default_authority": tls.serverName };
}
