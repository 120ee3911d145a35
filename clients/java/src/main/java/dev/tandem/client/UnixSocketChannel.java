package dev.tandem.client;

import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelConfig;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelOption;
import io.netty.channel.ChannelOutboundBuffer;
import io.netty.channel.DefaultChannelConfig;
import io.netty.channel.FileRegion;
import io.netty.channel.nio.AbstractNioByteChannel;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.nio.channels.SelectionKey;
import java.nio.channels.SocketChannel;

/**
 * A Unix socket of the JDK's as a channel of Netty's.
 *
 * <p>Netty's own need its native library for epoll, which distributions do not ship.
 */
final class UnixSocketChannel extends AbstractNioByteChannel {
  private final ChannelConfig config = new UnixSocketConfig(this);

  UnixSocketChannel() {
    super(null, openSocket());
  }

  private static SocketChannel openSocket() {
    try {
      return SocketChannel.open(StandardProtocolFamily.UNIX);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  @Override
  protected SocketChannel javaChannel() {
    return (SocketChannel) super.javaChannel();
  }

  @Override
  public ChannelConfig config() {
    return config;
  }

  @Override
  public boolean isActive() {
    return javaChannel().isOpen() && javaChannel().isConnected();
  }

  @Override
  protected boolean doConnect(SocketAddress remote, SocketAddress local) throws IOException {
    boolean connected = javaChannel().connect(remote);
    if (!connected) {
      selectionKey().interestOps(SelectionKey.OP_CONNECT);
    }
    return connected;
  }

  @Override
  protected void doFinishConnect() throws IOException {
    javaChannel().finishConnect();
  }

  @Override
  protected void doBind(SocketAddress local) {
    throw new UnsupportedOperationException("a client does not bind");
  }

  @Override
  protected void doDisconnect() throws Exception {
    doClose();
  }

  @Override
  protected void doClose() throws Exception {
    super.doClose();
    javaChannel().close();
  }

  @Override
  protected int doReadBytes(ByteBuf buffer) throws IOException {
    int room = buffer.writableBytes();
    unsafe().recvBufAllocHandle().attemptedBytesRead(room);
    return buffer.writeBytes(javaChannel(), room);
  }

  @Override
  protected int doWriteBytes(ByteBuf buffer) throws IOException {
    return buffer.readBytes(javaChannel(), buffer.readableBytes());
  }

  @Override
  protected long doWriteFileRegion(FileRegion region) throws IOException {
    return region.transferTo(javaChannel(), region.transferred());
  }

  @Override
  protected ChannelFuture shutdownInput() {
    return close();
  }

  @Override
  protected SocketAddress localAddress0() {
    return address(javaChannel()::getLocalAddress);
  }

  @Override
  protected SocketAddress remoteAddress0() {
    return address(javaChannel()::getRemoteAddress);
  }

  private static SocketAddress address(AddressOf of) {
    try {
      return of.get();
    } catch (IOException closed) {
      return null;
    }
  }

  private interface AddressOf {
    SocketAddress get() throws IOException;
  }

  /** Takes gRPC's keep-alive of TCP for granted: both ends are on this machine. */
  private static final class UnixSocketConfig extends DefaultChannelConfig {
    UnixSocketConfig(Channel channel) {
      super(channel);
    }

    @Override
    public <T> boolean setOption(ChannelOption<T> option, T value) {
      return option == ChannelOption.SO_KEEPALIVE || super.setOption(option, value);
    }
  }
}
